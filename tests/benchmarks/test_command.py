"""Benchmarks end as `diptych` does: bad input is told in one line, with its exit code."""

from pathlib import Path

from benchmarks import class_guidance, convergence
from benchmarks.command import command


def test_arguments_arrive_and_errors_are_exit_codes(capsys):
    asked: list[tuple[int, bool]] = []

    def run(n: int = 1, loud: bool = False) -> int | None:
        asked.append((n, loud))
        return 1 if loud else None

    assert command(run, ["--n", "3"]) == 0
    assert command(run, ["--loud"]) == 1  # as a benchmark whose goal is missed may end
    assert asked == [(3, False), (1, True)]

    def missing() -> None:
        Path("/nowhere").read_text()

    assert command(missing, []) == 3
    assert "test_command: [Errno 2] No such file" in capsys.readouterr().err


def test_what_is_no_run_is_named(tmp_path: Path, capsys):
    folder = tmp_path / "unet"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")  # as diffusers writes
    for benchmark in (class_guidance, convergence):
        assert command(benchmark.run, [str(folder), "--judge", str(folder)]) == 3
        name = benchmark.__name__.removeprefix("benchmarks.")
        told = f"{name}: {folder}: not a run folder: no config.yaml in it"
        assert capsys.readouterr().err.startswith(told)
    assert command(convergence.run, [str(folder), "--steps", "0"]) == 2
    assert "expected numbers in [1, reference = 160)" in capsys.readouterr().err
