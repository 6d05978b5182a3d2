"""The command line: flags to settings and back, precedence, and every way it can end."""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from infinitetalk.pipeline.commands.console import say, write
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.commands.table import COMMANDS
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.run.progress import (
    ConsoleProgress,
    Finished,
    Loading,
    Notice,
    RunStarted,
    Step,
    WindowDone,
    WindowStarted,
)
from infinitetalk.pipeline.settings.definition import setting_types
from infinitetalk.pipeline.settings.demo import demo_checkpoint
from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.pipeline.settings.presets import preset_names, settings_with_preset
from infinitetalk.pipeline.version import __version__

import generate_infinitetalk

INPUTS = ["--image", "portrait.png", "--audio", "speech.wav", "--prompt", "Someone talks."]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A working folder with an image and a sound file (in name), and a generator that keeps what it is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("infinitetalk.pipeline.planning.checked.check_run", lambda settings, job: None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name in ("portrait.png", "speech.wav"):
        Path(name).write_bytes(b"")
    calls = []

    def generate(settings, job, progress):
        calls.append((settings, job, progress))
        return settings.save_file

    fake = type(sys)("infinitetalk.pipeline.run.generator")
    fake.generate = generate
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr("infinitetalk.pipeline.run.generator", fake, raising=False)
    return calls


def error_of(capsys, argv):
    """The sentence on stderr of a call that must be refused."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--sample_step", "4"], "did you mean --sample_steps?"),
        (["--sample-steps=4"], "--sample-steps is not a flag; did you mean --sample_steps?"),
        (["--seed", "4"], "did you mean --base_seed?"),
        (["\N{EM DASH}-sample_shift", "4"], "did you mean --sample_shift?"),
        (["--quiet", "--frame_num", "81", "\N{EM DASH}-sample_shift"], "did you mean --sample_shift?"),
        (["--xyzzy"], "--help lists all flags"),
        (["generat"], "'generat' is not a command; did you mean generate?"),
        (["rec"], "did you mean recommend?"),
        (["zebra"], "error: 'zebra' is not a command; infinitetalk help lists all."),
        (["g"], "error: 'g' is not a command; infinitetalk help lists all."),
        (["version"], "did you mean --version?"),
        (["run"], "did you mean generate?"),
        (["generate", "-v"], "'-v' stands where a flag was expected; --help lists all flags."),
        (["--fps", "30"], "--fps is not a flag; --help lists all flags."),
        (["--cfg", "1"], "did you mean --sample_text_guide_scale?"),
        (["--output", "a.mp4"], "did you mean --save_file?"),
        (["help", "zebra"], "error: help: 'zebra' is not a command; there are generate, batch"),
        (["help", "preset"], "did you mean presets?"),
        (["portrait.png"], "name files by --image"),
        (["presets", "01"], "error: presets: '01' found, nothing expected"),
        (["info"], "error: info: the following arguments are required: VIDEO"),
        (["info", "a.mp4", "--ful"], "error: info: --ful is not a flag; did you mean --full?"),
        (["info", "a.mp4"], "error: info: a.mp4 does not exist"),
        (["inspect"], "error: inspect: the following arguments are required: FILE"),
        (["evaluate", "a.mp4", "b.wav"], "error: evaluate: a.mp4 does not exist"),
        (["evaluate", "a.mp4", "b.wav", "--picture", "c.jpg"], "error: evaluate: --picture writes PNG"),
        (["export", "a.txt"], "error: export: a.txt is neither"),
        (["convert"], "error: convert: give --quant"),
        (["convert", "--frame_num", "81"], "error: convert: --frame_num is not a flag"),
        (["convert", "--lora_scale", "much"], "error: convert: --lora_scale: 'much' found"),
        (["recommend", "--goal", "fun"], "error: recommend: --goal: invalid choice: 'fun'"),
        (["--frame_num", "many"], "--frame_num: 'many' found, a whole number expected"),
        (["--frame_num", "81.5"], "a whole number expected"),
        (["--sample_shift", "high"], "--sample_shift: 'high' found, a number expected"),
        (["--t5_cpu", "maybe"], "--t5_cpu: 'maybe' found, true or false"),
        (["--frame_num"], "--frame_num: expected one argument"),
        (["--lora_dir"], "--lora_dir: expected at least one argument"),
        (["--preset", "05"], "05_low_vram"),
        (["--frame_num", "80"], "4n+1"),
        (["--motion_frame", "81"], "fewer than --frame_num"),
        (["--num_persistent_param_in_dit", "0", "--blocks_to_swap", "30"], "give one of them"),
        (["--sample_solver", "flowmatch_distill", "--sample_steps", "8"], "exactly 4 steps"),
        (["--lora_dir", "a", "b"], "--lora_scale: 1 found"),
        (["--ulysses_size", "2"], "--ulysses_size times --ring_size is 2, but this is one process: add --gpus 2"),
        (["--ulysses_size", "2", "--gpus", "3"], "there are 3 processes; their number must be a multiple"),
        (["--dit_fsdp"], "--dit_fsdp: several cards expected, one found"),
        (["--scene_seg"], "scene segmentation"),
        (["--audio_mode", "tts"], "speech synthesis"),
        (["--quant", "fp4"], "--quant: 'fp4' found, one of fp8, int8"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(inputs, capsys, argv, sentence):
    assert sentence in error_of(capsys, argv)
    assert inputs == []


@pytest.mark.parametrize("words", [["-V"], ["generate", "--version"], ["info", "-V"]])
def test_the_version_is_told_wherever_it_is_asked_for(capsys, words):
    assert main(words) == 0
    assert capsys.readouterr().out == f"infinitetalk {__version__}\n"


def test_help_is_a_word_behind_a_command_too(capsys):
    assert main(["doctor", "help"]) == 0 == main(["help", "doctor"])
    first, second = capsys.readouterr().out.split("usage: ")[1:]
    assert first == second


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "9"}, {"KMP_BLOCKTIME": "9"}])
def test_threads_that_wait_sleep_unless_somebody_says_how(monkeypatch, capsys, given):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    main(["-V"])
    assert os.environ.get("OMP_WAIT_POLICY") == (given.get("OMP_WAIT_POLICY") if given else "passive")


def test_no_input_says_what_to_give(inputs, capsys):
    assert "Give --image or --video, --audio, or --input_json" in error_of(capsys, ["generate"])


def test_torchruns_processes_are_those_that_the_flags_say(inputs, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "--gpus: 3 found, but torchrun started 4 processes" in error_of(capsys, [*INPUTS, "--gpus", "3"])
    assert "--ring_size is 3, but there are 4 processes" in error_of(capsys, [*INPUTS, "--ring_size", "3"])


@pytest.mark.parametrize("command", [[], ["generate"]])
def test_a_run_gets_resolved_settings_and_prints_the_path_alone(inputs, capsys, command):
    assert main([*command, *INPUTS, "--save_file", "out", "--base_seed", "-1"]) == 0
    assert capsys.readouterr().out == "out.mp4\n"
    (settings, job, _), *_ = inputs
    assert settings.sample_steps == 40 and settings.base_seed >= 0 and settings.save_file == Path("out.mp4")
    assert (job.reference, job.speech, job.prompt) == (Path("portrait.png"), Path("speech.wav"), "Someone talks.")


def test_quiet_listens_to_nothing(inputs, capsys):
    assert main([*INPUTS, "--save_file", "out", "--quiet"]) == 0
    inputs[0][2](Loading("everything"))
    assert capsys.readouterr().out == "out.mp4\n"


def test_an_existing_video_is_kept_unless_overwrite(inputs, capsys):
    Path("out.mp4").write_bytes(b"")
    assert "--overwrite" in error_of(capsys, [*INPUTS, "--save_file", "out"])
    assert main([*INPUTS, "--save_file", "out", "--overwrite"]) == 0


def test_an_interrupt_and_bad_input_inside_a_run(inputs, capsys, monkeypatch):
    def interrupted(settings, job, progress):
        raise KeyboardInterrupt

    def refused(settings, job, progress):
        raise InputError("No. \N{SNOWMAN}")

    monkeypatch.setattr(sys.modules["infinitetalk.pipeline.run.generator"], "generate", interrupted)
    assert main([*INPUTS, "--save_file", "out"]) == 130
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setattr(sys.modules["infinitetalk.pipeline.run.generator"], "generate", refused)
    assert error_of(capsys, [*INPUTS, "--save_file", "out", "--quiet"]) == "error: No. \N{SNOWMAN}\n"


def test_text_that_the_console_cannot_show_is_escaped():
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    stream = Terminal(io.BytesIO(), encoding="cp1252")
    write(stream, "\N{SNOWMAN} \xe9")
    assert stream.buffer.getvalue() == b"\\u2603 \xe9" + os.linesep.encode()


def test_a_file_or_a_pipe_gets_utf_8_whatever_python_was_told(monkeypatch):
    """A prompt or a file's name that was written otherwise would be another one, in a command that looks right."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    say("\N{SNOWMAN} \xe9")
    assert stream.buffer.getvalue() == "\N{SNOWMAN} \xe9".encode() + os.linesep.encode()
    with pytest.raises(InputError, match="has characters that are no Unicode; give the file another name"):
        say("\udcff.mp4")
    assert b"udcff" not in stream.buffer.getvalue()


def test_help_lists_every_flag_and_version_a_number(capsys):
    assert main(["generate", "--help"]) == 0
    text = capsys.readouterr().out
    assert main(["--quiet", "-h"]) == 0
    assert capsys.readouterr().out == text
    assert all(f"--{name} " in text for name in setting_types())
    assert all(name in text for name in preset_names())
    for flag in ("--version", "-V"):
        assert main([flag]) == 0
        assert capsys.readouterr().out.split()[1][0].isdigit()


def test_help_lists_the_commands_and_each_has_its_own(capsys):
    texts = set()
    for argv in (["--help"], ["-h"], ["help"]):
        assert main(argv) == 0
        texts.add(capsys.readouterr().out)
    (text,) = texts
    for name, command in COMMANDS.items():
        assert f"  {name} " in text and command.line in text
        assert main([name, "--help"]) == 0
        own = capsys.readouterr().out
        assert own.startswith(f"usage: infinitetalk {name}") or (name, own[:31]) == (
            "generate",
            "usage: infinitetalk [generate] ",
        )
        assert main(["help", name]) == 0
        assert capsys.readouterr().out == own


def test_without_words_it_says_what_it_is_and_how_to_see_it_work(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    demo = text[text.index("infinitetalk") :].split("\n\n")[0].replace("\\\n", " ")
    settings = parse(shlex.split(demo)[1:])
    assert all(path.exists() for path in (settings.image, settings.audio, *vars(demo_checkpoint()).values()))
    assert settings == settings_with_preset("demo", save_file="talking")


def test_the_script_generates_where_no_command_is_named():
    with_usual = generate_infinitetalk.with_usual_command
    assert with_usual([]) == ["generate"] and with_usual(["--help"]) == ["generate", "--help"]
    for words in (["--version"], ["-V"], ["help"], ["info", "a.mp4"]):
        assert with_usual(words) == words


def test_one_who_stops_reading_is_no_error(monkeypatch):
    class Gone(io.StringIO):
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    for stream, code in ((Gone(), 0), (None, 0)):
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["presets"]) == code


def test_a_result_that_cannot_be_written_is_said(monkeypatch, capsys):
    class Full(io.StringIO):
        encoding = "utf-8"

        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["presets"]) == 2
    assert (
        "presets: the result cannot be written to standard output (No space left on device)" in capsys.readouterr().err
    )


def test_torchrun_tells_the_sentence_in_its_report(inputs, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "report.json"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, told in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert main([*INPUTS, "--gpus", "3"]) == 2
        sentence = json.loads((tmp_path / "report.json").read_text())["message"]["message"]
        assert "torchrun started 2 processes" in sentence
        assert (sentence in capsys.readouterr().err) is told


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from infinitetalk.pipeline.commands.main import main; main(['--help']); "
        "print([m for m in ('torch', 'numpy', 'av', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# The guide's whole command lines, and upstream's README's.
COMMON = [
    *("--ckpt_dir", "weights/Wan2.1-I2V-14B-480P", "--wav2vec_dir", "weights/chinese-wav2vec2-base"),
    *("--infinitetalk_dir", "weights/InfiniteTalk/single/infinitetalk.safetensors"),
]
GUIDE_FAST = [
    *COMMON,
    *("--lora_dir", "weights/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors", "--lora_scale", "0.8"),
    *("--quant", "fp8", "--quant_dir", "weights/InfiniteTalk/quant_models/infinitetalk_single_fp8.safetensors"),
    *("--input_json", "single.json", "--size", "infinitetalk-480"),
    *("--sample_steps", "4", "--sample_shift", "11.0"),
    *("--sample_text_guide_scale", "1.0", "--sample_audio_guide_scale", "2.0"),
    *("--mode", "streaming", "--frame_num", "81", "--motion_frame", "9", "--num_persistent_param_in_dit", "0"),
    *("--save_file", "output_fast"),
]
GUIDE_PARALLEL = [*COMMON, "--dit_fsdp", "--t5_fsdp", "--ulysses_size=4", "--input_json", "single.json"]
UPSTREAM_SINGLE = [
    *COMMON,
    *("--input_json", "single.json", "--size", "infinitetalk-480", "--sample_steps", "40"),
    *("--mode", "streaming", "--motion_frame", "9", "--save_file", "infinitetalk_res"),
]
GUIDE_PIECES = [
    ["--num_persistent_param_in_dit", "0", "--t5_cpu", "true", "--offload_model", "true"],
    ["--use_teacache", "--teacache_thresh", "0.2"],
    ["--use_apg", "--apg_momentum", "-0.75", "--apg_norm_threshold", "55"],
    ["--sample_audio_guide_scale", "3.0", "--sample_shift", "12.0"],
    ["--motion_frame", "15", "--color_correction_strength", "0.8"],
    ["--sample_steps", "8", "--sample_text_guide_scale", "2.0"],
]


@pytest.fixture
def single_json(inputs):
    entries = {"prompt": "p", "cond_video": "portrait.png", "cond_audio": {"person1": "speech.wav"}}
    Path("single.json").write_text(json.dumps(entries))
    return inputs


def test_the_guides_whole_command_is_understood(single_json):
    assert main(GUIDE_FAST) == 0
    settings, _, _ = single_json[0]
    assert (settings.lora_scale, settings.quant, settings.sample_shift) == ((0.8,), "fp8", 11)
    assert (settings.save_file, settings.num_persistent_param_in_dit) == (Path("output_fast.mp4"), 0)


def test_the_guides_parallel_command_needs_its_cards(single_json, capsys):
    """By this process alone, and understood where torchrun has started those that it names."""
    assert "add --gpus 4, or start with torchrun --nproc_per_node=4" in error_of(capsys, GUIDE_PARALLEL)


@pytest.mark.parametrize(("started", "words"), [("4", GUIDE_PARALLEL), ("1", [*GUIDE_PARALLEL, "--gpus", "4"])])
def test_the_guides_parallel_command_is_understood(single_json, monkeypatch, started, words):
    made = []
    together = type(sys)("infinitetalk.pipeline.commands.together")
    together.make = lambda settings, job, progress: sys.exit(made.append(settings))
    together.start = made.append
    monkeypatch.setitem(sys.modules, together.__name__, together)
    monkeypatch.setattr("infinitetalk.pipeline.commands.together", together, raising=False)
    monkeypatch.setenv("WORLD_SIZE", started)
    with contextlib.suppress(SystemExit):
        assert main(words) == 0
    (settings,) = made
    assert (settings.ulysses_size, settings.dit_fsdp, settings.t5_fsdp) == (4, True, True)


@pytest.mark.parametrize("piece", [[], *GUIDE_PIECES])
def test_upstreams_command_runs_with_each_of_the_guides_additions(single_json, piece):
    assert main([*UPSTREAM_SINGLE, *piece]) == 0
    settings, job, _ = single_json[0]
    assert settings.save_file == Path("infinitetalk_res.mp4") and job.prompt == "p"
    assert settings.num_persistent_param_in_dit == (0 if "--t5_cpu" in piece else None)


class Stream:
    """Text that was written, and a terminal or not."""

    def __init__(self, terminal):
        self.text, self.isatty = "", lambda: terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


EVENTS = [
    Loading("loading the transformer"),
    RunStarted(windows=2, frames=150, seconds=6.0),
    Notice("the speech is cut"),
    WindowStarted(0, 2),
    Step(0, 2, 4),
    WindowDone(0, 2, 3.24),
    WindowStarted(1, 2),
    WindowDone(1, 2, 6.0),
    Finished(Path("out.mp4")),
]


def show(terminal):
    stream, seconds = Stream(terminal), iter(range(0, 1000, 10))
    progress = ConsoleProgress(stream, clock=lambda: next(seconds))
    for event in EVENTS:
        progress(event)
    return stream.text


def test_progress_in_a_file_is_one_line_for_each_window():
    lines = show(terminal=False).splitlines()
    assert [line for line in lines if line.startswith("window")] == [
        "window 1/2 done, 3.24 of 6.00 s of video, 6.2 s of work for a second of video, about 0:20 left",
        "window 2/2 done, 6.00 of 6.00 s of video, 5.0 s of work for a second of video",
    ]
    assert "note: the speech is cut" in lines and "\r" not in "".join(lines)


def test_progress_on_a_terminal_updates_one_line():
    text = show(terminal=True)
    assert "\rwindow 1/2, step 2/4, 0.00 of 6.00 s of video, about 0:30 left" in text
    assert text.count("\n") == 6
