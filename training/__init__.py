"""How the demo's small model was trained: drawn faces, synthesised speech, one stage after the other.

``python -m infinitetalk.training STAGE`` runs one stage; README.md beside this file has the
recipe and what came out. Nothing here is needed to use the model.
"""
