"""slim.py on small libraries made here; the whole of torch is slimmed, and checked, in the build of the image."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SLIM = Path(__file__).resolve().parents[2] / "trainer_image" / "slim.py"
GPU_CODE_BYTES = 64 * 1024

WITH_GPU_CODE = f"""
.globl answer, inside_gpu_code, after_gpu_code, read_data
.text
answer: movl $42, %eax
 ret
read_data: movl kept(%rip), %eax
 ret
inside_gpu_code: leaq gpu_code+{GPU_CODE_BYTES // 2}(%rip), %rax
 movzbl (%rax), %eax
 ret
after_gpu_code: leaq later(%rip), %rax
 movl (%rax), %eax
 ret
.section .rodata
.long 77
.section .nv_fatbin,"a",@progbits
gpu_code: .fill {GPU_CODE_BYTES}, 1, 7
.section .zz_later,"a",@progbits
later: .long 1234
.data
kept: .long 99
.section .note.gnu.build-id,"a",@note
.long 4, 4, 3
.asciz "GNU"
.long 1
.section .note.GNU-stack,"",@progbits
"""
LIBRARY = """
.globl used, other, table
.text
used: movl $3, %eax
 ret
other: movl $0, %eax
 ret
.data
.type table,@object
.size table,16
table: .quad 5, 6
.section .note.GNU-stack,"",@progbits
"""
CLIENT = """
.globl call
.text
call: subq $8, %rsp
 call used@PLT
 addq $8, %rsp
 movq table@GOTPCREL(%rip), %rdx
 addl (%rdx), %eax
 ret
.section .note.GNU-stack,"",@progbits
"""


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slim", SLIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["slim"] = module
    spec.loader.exec_module(module)
    return module


slim = _load()


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    def build(path: Path, source: str, *arguments: str | Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        object_file = tmp_path / f"{path.name}.o"
        subprocess.run(["as", "-o", object_file, "-"], input=source, text=True, check=True)
        command = ["ld", "-shared", "--build-id", f"-soname={path.name}", "-o", path, object_file, *arguments]
        subprocess.run(command, check=True)
        return path

    return build


def call(library: Path, function: str) -> int:
    """Calls a function of a library in a process of its own: a broken library ends the process that loads it."""
    script = "import ctypes, sys; print(getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2])())"
    result = subprocess.run(
        [sys.executable, "-c", script, library, function], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


def test_compact_cuts_out_gpu_code_and_changes_nothing_else(tmp_path: Path, build: Callable[..., Path]) -> None:
    path = build(tmp_path / "lib.so", WITH_GPU_CODE)
    path.chmod(0o755)
    linked = tmp_path / "cached.so"
    os.link(path, linked)
    original = path.read_bytes()

    saved = slim.compact(path)

    assert saved > GPU_CODE_BYTES - 2 * 4096
    assert path.stat().st_size == len(original) - saved
    assert path.stat().st_mode & 0o777 == 0o755
    assert linked.read_bytes() == original, "a package cache shares its files by hard links"
    functions = ("answer", "inside_gpu_code", "after_gpu_code", "read_data")
    assert [call(linked, each) for each in functions] == [42, 7, 1234, 99]
    assert [call(path, each) for each in functions] == [42, 0, 1234, 99]


def test_compact_leaves_out_what_only_debuggers_read(tmp_path: Path, build: Callable[..., Path]) -> None:
    path = build(tmp_path / "lib.so", LIBRARY)
    slim.compact(path)
    sections = subprocess.run(["readelf", "--sections", path], capture_output=True, text=True, check=True)
    assert "There are no sections" in sections.stdout
    assert call(path, "used") == 3


def test_compact_refuses_what_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_text("INPUT(libother.so)")
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF file"):
        slim.compact(path)


@pytest.mark.parametrize("versions", ["", "LIB_1.0 { global: *; };"], ids=["unversioned", "versioned"])
def test_stubs_satisfy_the_loader_and_return_errors(tmp_path: Path, build: Callable[..., Path], versions: str) -> None:
    script = tmp_path / "versions.map"
    script.write_text(versions or "{ global: *; };")
    nvidia = tmp_path / "nvidia" / "cu13" / "lib"
    library = build(nvidia / "libblas.so.13", LIBRARY, f"--version-script={script}")
    unlinked = build(nvidia / "libsolver.so.12", LIBRARY)
    runtime = build(nvidia / "libcudart.so.13", LIBRARY)
    kept = runtime.read_bytes()
    client = build(tmp_path / "torch" / "lib" / "libtorch_cuda.so", CLIENT, library, f"-rpath={nvidia}")

    slim.stub_cuda_libraries(tmp_path)

    # The function returns 1, an error; the table, now zeros, adds nothing.
    assert call(client, "call") == 1
    assert runtime.read_bytes() == kept
    assert not unlinked.exists()
    symbols = subprocess.run(["readelf", "--wide", "--dyn-syms", library], capture_output=True, text=True, check=True)
    assert "used" in symbols.stdout
    assert "other" not in symbols.stdout, "only what is asked for is in a stub"


def test_what_only_gpus_use_is_removed(tmp_path: Path) -> None:
    for name in ("triton/compiler.py", "torch/include/torch.h", "nvidia/cu13/include/cuda.h", "torch/nn.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    slim.remove_unused(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == ["torch/nn.py"]


def test_a_folder_without_torch_is_refused(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, SLIM, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no torch is installed there" in result.stderr
