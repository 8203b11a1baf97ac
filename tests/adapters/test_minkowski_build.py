"""Building MinkowskiEngine: what is checked before, what is said when something is missing, where the wheel is kept."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from probemb_adapters.networks import minkowski_build as build
from probemb_adapters.networks.minkowski_build import BuildError, OpenBLAS


def test_the_installed_engine_agrees_with_a_dense_convolution() -> None:
    assert build.installed()
    assert build.check_convolution() < 1e-12


def test_the_check_sees_a_wrong_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.nn.functional as F

    conv3d = F.conv3d
    monkeypatch.setattr(F, "conv3d", lambda x, kernel, padding: conv3d(x, kernel.flip(2), padding=padding))
    assert build.check_convolution() > 0.1


def test_a_wrong_engine_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "check_convolution", lambda: 1e-3)
    with pytest.raises(SystemExit, match=r"differs from a dense convolution by 1\.0e-03"):
        build.main(["--check"])


def test_a_working_engine_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> Path:
        raise AssertionError("built")

    monkeypatch.setattr(build, "build_wheel", never)
    build.main(["--cache", str(tmp_path)])
    assert "agrees with a dense convolution" in capfd.readouterr().out


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would be run; compiling leaves an empty wheel."""
    commands: list[list[str]] = []

    def record(command: list[str], environment: dict[str, str]) -> None:
        commands.append(command)
        if "wheel" in command and "-w" in command:
            (Path(command[command.index("-w") + 1]) / "minkowskiengine-0.5.4-py3-none-any.whl").touch()

    monkeypatch.setattr(build, "_run", record)
    return commands


def test_the_wheel_is_cached_by_torch_and_python(
    tmp_path: Path, recorded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[str | None] = ["not there", None, "not there", None]
    monkeypatch.setattr(build, "_checked", lambda: works.pop(0))
    build.install(tmp_path)
    folder = build.wheel_folder(tmp_path)
    assert torch.__version__ in folder.name
    assert f"cp{sys.version_info.major}{sys.version_info.minor}" in folder.name
    assert [p.name for p in folder.iterdir()] == ["minkowskiengine-0.5.4-py3-none-any.whl"]
    assert sum("wheel" in command and "-w" in command for command in recorded) == 1
    recorded.clear()
    build.install(tmp_path)  # from the cache
    assert len(recorded) == 1
    assert recorded[0][-1] == str(folder / "minkowskiengine-0.5.4-py3-none-any.whl")


def test_an_engine_that_does_not_work_after_installing_is_an_error(
    tmp_path: Path, recorded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_checked", lambda: "undefined symbol")
    with pytest.raises(BuildError, match="undefined symbol"):
        build.install(tmp_path)


def test_options_of_the_build(tmp_path: Path, recorded: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    place = OpenBLAS(tmp_path / "include", tmp_path / "lib")
    monkeypatch.setattr(build, "find_openblas", lambda environment: place)
    build.build_wheel(tmp_path / "wheels", cpu_only=True)
    options = [word.split("=", 2)[2] for word in recorded[-1] if word.startswith("--config-settings")]
    assert options == [
        "--blas=openblas",
        "--cpu_only",
        f"--blas_include_dirs={tmp_path / 'include'}",
        f"--blas_library_dirs={tmp_path / 'lib'}",
    ]
    assert "--no-cache-dir" in recorded[-1]  # pip's cache knows nothing of torch
    assert not list((tmp_path / "wheels").glob(".build-*"))


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(BuildError, match="no compiler no-such-compiler"):
        build.build_wheel(tmp_path, cpu_only=True)


def test_a_missing_openblas_is_named(
    tmp_path: Path, recorded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_links", lambda place, environment: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BuildError, match="libopenblas-dev"):
        build.build_wheel(tmp_path, cpu_only=True)
    assert not recorded  # no apt-get without the right to


def test_apt_installs_openblas_where_it_may(
    tmp_path: Path, recorded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [None, OpenBLAS()]
    monkeypatch.setattr(build, "find_openblas", lambda environment: there.pop(0))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(build.shutil, "which", lambda tool, path=None: f"/usr/bin/{tool}")
    build.build_wheel(tmp_path, cpu_only=True)
    assert ["apt-get", "install", "-y", "-qq", "libopenblas-dev"] in recorded


def test_an_openblas_beside_the_system(tmp_path: Path) -> None:
    for folder in ("include", "lib"):
        (tmp_path / folder).mkdir()
    (tmp_path / "include" / "cblas.h").write_text("double cblas_dasum(int n, const double *x, int incx);\n")
    source = tmp_path / "blas.c"
    source.write_text("double cblas_dasum(int n, const double *x, int incx) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(tmp_path / "lib" / "libopenblas.so")], check=True)
    assert build._links(OpenBLAS(tmp_path / "include", tmp_path / "lib"), os.environ)
    assert not build._links(OpenBLAS(tmp_path / "elsewhere", tmp_path / "lib"), os.environ)


def test_openblas_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_links", lambda place, environment: str(place.include).startswith("/own"))
    found = build.find_openblas({"OPENBLAS_HOME": "/own"})
    assert found == OpenBLAS(Path("/own/include"), Path("/own/lib"))
    monkeypatch.setattr(build, "_links", lambda place, environment: False)
    assert build.find_openblas({}) is None


def test_cuda_without_its_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.utils.cpp_extension

    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.utils.cpp_extension, "CUDA_HOME", None)
    with pytest.raises(BuildError, match=r"CUDA toolkit 12\.8"):
        build.build_wheel(tmp_path)


def test_cuda_is_built_for_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.utils.cpp_extension

    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.utils.cpp_extension, "CUDA_HOME", "/usr/local/cuda")
    environment: dict[str, str] = {}
    assert build._cuda_options(environment, cpu_only=False) == ["--force_cuda"]
    assert "-include thrust/execution_policy.h" in environment["NVCC_APPEND_FLAGS"]
    assert build._cuda_options({}, cpu_only=True) == ["--cpu_only"]


def test_what_a_failed_command_printed_is_shown() -> None:
    code = "import sys; print('the reason'); sys.exit(3)"
    with pytest.raises(BuildError, match="the reason"):
        build._run([sys.executable, "-c", code], os.environ)


@pytest.mark.parametrize(("memory", "jobs"), [(1 << 30, 1), (5 << 30, 2), (1 << 40, 4)])
def test_jobs_fit_into_memory(memory: int, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, int] = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": memory // 4096}
    sysconf: Callable[[str], int] = sizes.__getitem__
    monkeypatch.setattr(os, "sysconf", sysconf)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert build._jobs() == jobs


def test_the_command_reports_an_error_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BuildError("no OpenBLAS")

    monkeypatch.setattr(build, "install", fail)
    with pytest.raises(SystemExit, match="MinkowskiEngine: no OpenBLAS"):
        build.main(["--cache", str(tmp_path)])
