/* Preloaded: ends the process, or fails, at the n-th call that changes a file of one folder. For tests of crashes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char *folder = NULL;
static long count = 0, target = -1;
static int fails = 0;

/* From here on calls in the folder are counted; the one of this number (from 0) crashes, or fails with errno. */
void crash_arm(const char *in, long number, int with_errno) {
    folder = strdup(in);
    count = 0;
    target = number;
    fails = with_errno;
}

long crash_count(void) { return count; }

static int is_ours(const char *path) { return folder && path && strstr(path, folder) == path; }

static int is_our_file(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* Whether the call is to fail; never comes back where it is to crash, having written half of the bytes. */
static int struck(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (count++ != target) return 0;
    if (!fails) {
        if (size > 1) real(fd, data, size / 2);
        _exit(77);
    }
    errno = fails;
    return 1;
}

#define REAL(name) __typeof__(&name) real = dlsym(RTLD_NEXT, #name)
#define ON_FILE(name, parameters, arguments)                      \
    int name parameters {                                         \
        REAL(name);                                               \
        return is_our_file(fd) && struck(-1, NULL, 0) ? -1 : real arguments; \
    }
#define ON_PATH(name, parameters, arguments, path)                \
    int name parameters {                                         \
        REAL(name);                                               \
        return is_ours(path) && struck(-1, NULL, 0) ? -1 : real arguments; \
    }

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    return is_our_file(fd) && struck(fd, data, size) ? -1 : real(fd, data, size);
}

ON_FILE(fsync, (int fd), (fd))
ON_FILE(fdatasync, (int fd), (fd))
ON_FILE(ftruncate, (int fd, off_t size), (fd, size))
ON_FILE(ftruncate64, (int fd, off64_t size), (fd, size))
ON_PATH(rename, (const char *from, const char *to), (from, to), from)
ON_PATH(link, (const char *from, const char *to), (from, to), from)
ON_PATH(linkat, (int f, const char *from, int t, const char *to, int flags), (f, from, t, to, flags), from)
ON_PATH(unlink, (const char *path), (path), path)
ON_PATH(unlinkat, (int fd, const char *path, int flags), (fd, path, flags), path)
