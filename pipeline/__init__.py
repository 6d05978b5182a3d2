"""The engine: from a portrait or a video, and speech, to a talking video of any length.

Plain PyTorch. It never imports ComfyUI and never reads ``sys.argv``; both doors (the nodes and the
command line) hand it a ``Settings`` object and a ``Job``.
"""
