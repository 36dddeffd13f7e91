"""Where settings come from, and which of them wins."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from vecdb.cli.settings import KINDS, Settings
from vecdb.errors import InvalidArgument, NotFound


def _settings(config: Path | None = None, **environment: str) -> Settings:
    return Settings.of(argparse.Namespace(config=config), environment)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "vecdb.toml"
    path.write_text('address = "127.0.0.1:1"\npath = "kb"\ndeadline_s = 5\nwarm_up = false\n')
    return path


def test_flag_beats_environment_beats_file_beats_default(config):
    both = _settings(config, VECDB_ADDRESS="127.0.0.1:2")
    assert both.choose("address", "127.0.0.1:3", "default") == "127.0.0.1:3"
    assert both.choose("address", None, "default") == "127.0.0.1:2"
    assert _settings(config).choose("address", None, "default") == "127.0.0.1:1"
    assert _settings().choose("address", None, "default") == "default"


def test_the_file_is_named_by_flag_or_environment(config, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('address = "127.0.0.1:9"')
    assert _settings(None, VECDB_CONFIG=str(config)).choose("address", None) == "127.0.0.1:1"
    assert _settings(other, VECDB_CONFIG=str(config)).choose("address", None) == "127.0.0.1:9"


def test_values_have_their_types(config):
    settings = _settings(config, VECDB_REQUESTS_MAX="12", VECDB_INSECURE="yes", VECDB_GRACE_S="0.5")
    assert settings.choose("path", None) == Path("kb")
    assert settings.choose("deadline_s", None) == 5
    assert settings.choose("warm_up", None, True) is False
    assert settings.choose("requests_max", None) == 12
    assert settings.choose("insecure", None) is True
    assert settings.choose("grace_s", None) == 0.5


def test_an_empty_variable_is_not_set(config):
    assert _settings(config, VECDB_ADDRESS="").choose("address", None) == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("addres = 'x'", "addres"),
        ("address = 7", "address"),
        ("requests_max = true", "requests_max"),
        ("warm_up = 'yes'", "warm_up"),
        ("memory_budget_bytes = '1 GB'", "memory_budget_bytes"),
        ("address = ", "config"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, text, field):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as raised:
        _settings(path)
    assert raised.value.field == field
    assert str(path) in raised.value.message


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"nowhere\.toml"):
        _settings(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(("name", "text"), [("requests_max", "many"), ("insecure", "perhaps"), ("grace_s", "soon")])
def test_a_wrong_variable_is_refused_by_name(name, text):
    variable = f"VECDB_{name.upper()}"
    with pytest.raises(InvalidArgument) as raised:
        _settings(None, **{variable: text})
    assert (raised.value.field, raised.value.value) == (variable, text)


def test_every_setting_is_documented():
    page = Path(__file__).parents[2].joinpath("docs", "command-line.md").read_text(encoding="utf-8")
    for name in KINDS:
        assert f"`{name}`" in page, name
