"""What a layered picture is dressed in: layout and tones of a picture, palettes, the shader in torch."""
