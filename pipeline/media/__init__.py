"""Pictures, sound and video files: everything between the disk and tensors."""
