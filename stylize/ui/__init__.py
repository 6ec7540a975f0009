"""The page of `stylize ui`: what the commands do, chosen by looking; nothing leaves the machine."""
