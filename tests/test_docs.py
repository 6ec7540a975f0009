import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def anchor(title):
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_command_reference_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_cli_docs", ROOT / "scripts" / "make_cli_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Versions of click break lines in other places.
    written, wanted = (" ".join(text.split()) for text in (module.TARGET.read_text(encoding="utf-8"), module.text()))
    assert written == wanted, "run python scripts/make_cli_docs.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name}: {target}"
        if fragment and other.suffix == ".md":
            titles = re.findall(r"(?m)^#+ (.*)$", other.read_text(encoding="utf-8"))
            assert fragment in map(anchor, titles), f"{page.name}: {target}"


def test_every_command_in_the_guides_exists():
    from stylize.cli import COMMANDS

    for page in PAGES:
        for line in re.findall(r"(?m)^stylize (\w+)", page.read_text(encoding="utf-8")):
            assert line in COMMANDS, f"{page.name}: stylize {line}"


def test_example_settings_are_accepted(tmp_path, monkeypatch):
    from stylize.cli import stylize
    from stylize.commands.config_file import load_defaults

    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.DOTALL)
    (tmp_path / "stylize.toml").write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stylize.commands.config_file.user_file", lambda: tmp_path / "none")
    defaults = load_defaults(stylize)
    assert defaults["video"]["crf"] == "17" and defaults["folder"]["look"] == "dusk"


def test_messages_in_the_guide_are_real():
    """Every message of the table stands in the code, but for names and numbers."""
    code = "\n".join(
        path.read_text(encoding="utf-8") for package in ("stylize", "engine") for path in (ROOT / package).rglob("*.py")
    )
    code = " ".join(re.sub(r'"\s*\n\s*f?"', "", code).split())
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    table = guide[guide.index("| message |") :]
    for message in re.findall(r"(?m)^\| `([^|]*)` ", table):
        parts = [p.strip() for p in re.split(r"\.\.\.|'\w+'|\bfulll?\b|\d+|\(did you mean|\?\)", message)]
        for part in parts:
            assert part in code or len(part) < 5, message
