import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from program import Program

from stylize.commands.config_file import defaults_from, set_user_value
from stylize.commands.image import image
from stylize.commands.video import video
from stylize.errors import InputError

COMMANDS = {"video": video, "image": image}


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_keys_at_the_top_go_to_every_command_that_has_them(tmp_path):
    file = written(tmp_path / "a.toml", 'look = "dusk"\ncrf = 17\nkeep-color = 0.25\n[image]\nquality = 80\n')
    defaults = defaults_from([file], COMMANDS)
    assert defaults["video"] == {"look": "dusk", "crf": "17", "keep_color": "0.25"}
    assert defaults["image"] == {"look": "dusk", "keep_color": "0.25", "quality": "80"}


def test_the_folder_outranks_the_user_and_a_section_the_top(tmp_path):
    user = written(tmp_path / "user.toml", 'look = "dusk"\nstrength = 0.5\n[video]\nlook = "night"\n')
    folder = written(tmp_path / "folder.toml", "strength = 0.75\n[video]\nten_bit = true\n")
    defaults = defaults_from([user, folder], COMMANDS)
    assert defaults["video"] == {"look": "night", "strength": "0.75", "ten_bit": True}
    assert defaults["image"] == {"look": "dusk", "strength": "0.75"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stregth = 1", "unknown key 'stregth': did you mean 'strength'"),
        ("[video]\ncfr = 3", r"unknown key 'cfr' in \[video\]: did you mean 'crf'"),
        ("[vidoe]\ncrf = 3", r"unknown section \[vidoe\]: did you mean 'video'"),
        ("[video]\ncrf = 'much'", "crf: 'much' is not a valid integer"),
        ("[video]\ncrf = true", "crf is a number or a text in quotes, got true"),
        ("[video]\noverwrite = 'yes'", "overwrite is true or false"),
        ("[video]\nfps = [1, 2]", "fps is a number"),
        ("[video]\nfps = 'fast'", "is no rate"),
        ("look = dusk", "cannot be read as TOML"),
        ("zzzz = 1", "known are .*look"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    file = written(tmp_path / "stylize.toml", text)
    with pytest.raises(InputError, match=message) as caught:
        defaults_from([file], COMMANDS)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_the_users_file_keeps_what_else_is_in_it(tmp_path, monkeypatch):
    path = tmp_path / "x" / "stylize.toml"
    monkeypatch.setattr("stylize.commands.config_file.user_file", lambda: path)
    set_user_value("model", "monet")
    assert path.read_text() == 'model = "monet"\n'
    written(path, '# mine\nlook = "dusk"\n[video]\nmodel = "slow"\n')
    set_user_value("model", "a\\b")
    set_user_value("model", "light")
    assert path.read_text() == 'model = "light"\n# mine\nlook = "dusk"\n[video]\nmodel = "slow"\n'


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stylize.commands.config_file.user_file", lambda: tmp_path / "user" / "stylize.toml")
    monkeypatch.chdir(tmp_path)
    return Program(monkeypatch, capsys)


def test_command_line_then_environment_then_file(program, tmp_path, monkeypatch):
    """Each source gives a strength that is refused, and the message tells whose was taken."""
    args = ("image", "a.jpg", "-o", "b.jpg")
    written(tmp_path / "user" / "stylize.toml", "strength = 2.0\n")
    assert "got 2.0" in program(*args, expect=2).err
    written(tmp_path / "stylize.toml", "strength = 3.0\n")
    assert "got 3.0" in program(*args, expect=2).err
    monkeypatch.setenv("STYLIZE_IMAGE_STRENGTH", "4")
    assert "got 4.0" in program(*args, expect=2).err
    assert "got 5.0" in program(*args, "--strength", "5", expect=2).err


def test_a_mistake_in_the_file_is_one_line_and_does_not_stop_other_commands(program, tmp_path):
    written(tmp_path / "stylize.toml", "lok = 'dusk'\n")
    err = program("image", "a.jpg", "-o", "b.jpg", expect=1).err
    assert err.startswith("Error: ") and err.count("\n") == 1 and "'look'" in err
    program("models", "show", "--help")


def test_the_programs_own_options_stand_in_the_file(program, tmp_path):
    args = ("image", "gone.jpg", "-o", "b.jpg")
    written(tmp_path / "stylize.toml", 'verbose = 1\nlog-file = "log.txt"\n')
    assert "INFO: model" in program(*args, expect=1).err
    assert "no such file" in (tmp_path / "log.txt").read_text()
    # -q overrules verbose of the file, before the command or behind it; the log file stays.
    (tmp_path / "log.txt").unlink()
    for line in (("-q", *args), (*args, "--quiet")):
        err = program(*line, expect=1).err
        assert err.startswith("Error: gone.jpg") and err.count("\n") == 1
    assert "INFO stylize" in (tmp_path / "log.txt").read_text()
    program(*args, "--log-file", "other.txt", expect=1)
    assert (tmp_path / "other.txt").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("verbose = true", "verbose is a number"),
        ("quiet = 1", "quiet is true or false"),
        ("quiet = true\nverbose = 2", "choose -v or -q, not both"),
        ("[video]\nquiet = true", r"unknown key 'quiet' in [video]"),
        ("log-file = '/no/such/folder/log.txt'", "log file cannot be written"),
    ],
)
def test_mistakes_in_the_programs_own_options(program, tmp_path, text, message):
    written(tmp_path / "stylize.toml", text)
    err = program(
        "image", "gone.jpg", "-o", "b.jpg", expect=2 if "[" not in message and " is " not in message else 1
    ).err
    assert message in err and "Traceback" not in err


def test_options_of_the_program_may_stand_behind_the_command(program):
    args = ("image", "gone.jpg", "-o", "b.jpg")
    assert "INFO: " in program(*args, "-v", expect=1).err
    assert "DEBUG: " in program("-q", *args, "-vv", expect=1).err
    assert "INFO: " not in program("-v", *args, "-q", expect=1).err
    assert "choose -v or -q" in program(*args, "-v", "-q", expect=2).err
    assert "shipped" in program("models", "list", "-q").out


def test_help_names_the_environment_in_one_line_and_groups_options(program):
    out = program("image", "--help").out
    assert "Every option may also stand in the environment: STYLIZE_IMAGE_OUTPUT for --output" in " ".join(out.split())
    assert out.count("STYLIZE_") == 1
    headings = re.findall(r"(?m)^(\S.*):$", out)
    assert headings == ["Result", "Look", "Picture", "Machine", "Other options"]
    variables = {option.envvar for option in image.params}
    assert "STYLIZE_IMAGE_KEEP_COLOR" in variables and "STYLIZE_IMAGE_VERBOSE" not in variables
    assert "STYLIZE_MODELS_IMPORT_NAME for --name" in " ".join(program("models", "import", "--help").out.split())
    out = program("--help").out
    for name in ("_STYLIZE_COMPLETE", "STYLIZE_LOG_FILE", "STYLIZE_FFMPEG", "STYLIZE_MODELS", "FIREWATCH_CACHE"):
        assert name in out


def test_variables_named_in_the_help_are_heard(program, monkeypatch):
    monkeypatch.setenv("STYLIZE_VERBOSE", "1")
    monkeypatch.setenv("STYLIZE_LOG_FILE", "log.txt")
    assert "INFO: " in program("image", "gone.jpg", "-o", "b.jpg", expect=1).err
    assert Path("log.txt").is_file()
    monkeypatch.setenv("STYLIZE_MODELS_LIST_JSON", "1")
    assert program("models", "list").out.startswith("[")


@pytest.mark.parametrize("command", ["video", "folder"])
def test_gpus_are_a_matter_of_one_machine(monkeypatch, capsys, tmp_path, command):
    (tmp_path / "a.mp4").write_bytes(b"")
    source = tmp_path if command == "folder" else tmp_path / "a.mp4"
    out = ["-o", tmp_path / "out.mp4"] if command == "video" else []
    error = Program(monkeypatch, capsys)(command, source, *out, "--ray", "auto", "--gpus", "0,1", expect=2).err
    assert "--gpus does not go with --ray" in error


def test_a_byte_order_mark_does_not_matter(tmp_path, monkeypatch):
    file = tmp_path / "stylize.toml"
    file.write_bytes(b"\xef\xbb\xbflook = 'night'\n")
    assert defaults_from([file], COMMANDS)["image"] == {"look": "night"}
    monkeypatch.setattr("stylize.commands.config_file.user_file", lambda: file)
    set_user_value("model", "light")
    assert file.read_bytes() == b"model = \"light\"\nlook = 'night'\n"
