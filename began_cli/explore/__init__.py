"""The page of `began explore`: generators side by side, from the same latents."""
