"""What writes committed files: pages, texts of the nodes, workflows, pictures, the presets as scripts."""
