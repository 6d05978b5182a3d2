"""What holds everywhere and needs no PyTorch: geometry, sizes of the real model, tables of what there is."""
