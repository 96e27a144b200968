"""Makes a CUDA build of PyTorch small enough to ship for CPUs.

The package registry's torch carries CUDA: 4.5 GB of 5 that a CPU never runs. No
CPU build is there, and its CUDA libraries cannot simply be deleted, because
libtorch is linked against them. So this script, run once on an installed
environment:

1. puts a stub in the place of each CUDA library that libtorch is linked with:
   the symbols that libtorch asks for, whose functions return an error code;
2. cuts out of libtorch the machine code for GPUs and the symbol tables for
   debuggers: neither is read to run on a CPU;
3. deletes what only a GPU or a compiler uses (Triton, CUDA headers and tools);
4. starts Python and checks that torch still computes.

    python slim.py SITE_PACKAGES        needs as, ld and readelf (binutils)

torch then says that CUDA is not available, as on any machine without a GPU.
"""

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

# Called when libtorch is loaded, and small.
KEPT_LIBRARIES = re.compile(r"lib(cudart|cupti)\.so\.\d+")
GPU_CODE_SECTIONS = (b".nv_fatbin", b"__nv_relfatbin")
UNUSED = (
    "triton",
    "triton-*.dist-info",
    "cuda",
    "cuda_*.dist-info",
    "nvidia/*/include",
    "nvidia/*/cccl",
    "nvidia/*/lib/*.a",
    "nvidia/*/lib/*.bc",
    "torch/include",
    "torch/share/cmake",
    "torch/bin/protoc*",
    "torch/bin/*test*",
    "bitsandbytes/libbitsandbytes_cuda*.so",
    "bitsandbytes/libbitsandbytes_rocm*.so",
    "bitsandbytes/libbitsandbytes_xpu*.so",
)
CHECK = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
optimizer = torch.optim.AdamW(model.parameters())
with torch.autocast("cpu", dtype=torch.bfloat16):
    loss = model(torch.randn(16, 64)).float().pow(2).mean()
loss.backward()
optimizer.step()
assert torch.isfinite(loss)
a = torch.randn(8, 8, dtype=torch.float64)
u, s, v = torch.linalg.svd(a)
assert torch.allclose(u @ torch.diag(s) @ v, a)
assert torch.allclose(torch.fft.irfft(torch.fft.rfft(a)), a)
assert not torch.cuda.is_available()
assert torch.distributed.is_gloo_available()
"""

PT_LOAD, PT_NOTE = 1, 4


@dataclass(frozen=True)
class Segment:
    """One program header of an ELF file: a run of bytes and where it is mapped."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    alignment: int

    FORMAT = "<IIQQQQQQ"

    @classmethod
    def unpack(cls, data: bytes) -> "Segment":
        """Reads a program header of a 64-bit little-endian file."""
        kind, flags, offset, address, _, file_size, memory_size, alignment = struct.unpack(cls.FORMAT, data)
        return cls(kind, flags, offset, address, file_size, memory_size, alignment)

    def pack(self) -> bytes:
        """Writes the program header."""
        return struct.pack(
            self.FORMAT,
            self.kind,
            self.flags,
            self.offset,
            self.address,
            self.address,
            self.file_size,
            self.memory_size,
            self.alignment,
        )


@dataclass(frozen=True)
class ElfFile:
    """What the header of a 64-bit little-endian ELF file says, and its bytes."""

    data: bytes
    segments: list[Segment]
    header_offset: int
    sections: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "ElfFile":
        """Reads an ELF file.

        Raises:
            ValueError: It is not a 64-bit little-endian ELF file.
        """
        data = path.read_bytes()
        if data[:6] != b"\x7fELF\x02\x01":
            msg = f"{path}: not a 64-bit little-endian ELF file"
            raise ValueError(msg)
        header_offset, section_offset = struct.unpack_from("<QQ", data, 32)
        header_size, header_count, section_size, section_count, names_index = struct.unpack_from("<HHHHH", data, 54)
        segments = [
            Segment.unpack(data[at : at + header_size])
            for at in range(header_offset, header_offset + header_count * header_size, header_size)
        ]
        # name, type, flags, address, offset, size, …
        sections = [
            struct.unpack_from("<IIQQQQIIQQ", data, section_offset + index * section_size)
            for index in range(section_count)
        ]
        names = sections[names_index][4] if sections else 0
        return cls(
            data,
            segments,
            header_offset,
            {data[names + s[0] : data.index(b"\0", names + s[0])]: (s[3], s[5]) for s in sections if s[3]},
        )


def _without(segments: list[Segment], start: int, end: int) -> Iterator[Segment]:
    """Splits the loaded segment around a range of addresses, which is then mapped as zeros.

    The range is narrowed to whole pages. Nothing changes where no segment holds it.
    """
    for segment in segments:
        first = -(-start // segment.alignment) * segment.alignment if segment.alignment else 0
        last = end // segment.alignment * segment.alignment if segment.alignment else 0
        inside = segment.address < first < last < segment.address + segment.file_size
        if segment.kind != PT_LOAD or not inside:
            yield segment
            continue
        yield replace(segment, file_size=first - segment.address, memory_size=last - segment.address)
        skipped = last - segment.address
        yield replace(
            segment,
            offset=segment.offset + skipped,
            address=last,
            file_size=segment.file_size - skipped,
            memory_size=segment.memory_size - skipped,
        )


def compact(path: Path) -> int:
    """Rewrites a shared library to hold only what is mapped to run it on a CPU.

    GPU code is mapped as zeros; section headers, symbol tables and debug
    information, which no loader reads, are left out. Addresses stay the same.

    Args:
        path: The library, which is written over. Hard links to it are not.

    Returns:
        How many bytes shorter it is.

    Raises:
        ValueError: It is not a 64-bit little-endian ELF file.
    """
    elf = ElfFile.read(path)
    segments = elf.segments
    for name in GPU_CODE_SECTIONS:
        if name in elf.sections:
            address, size = elf.sections[name]
            segments = list(_without(segments, address, address + size))
    # A note takes a place in the table that a split segment needs; only debuggers read it.
    if len(segments) > len(elf.segments):
        segments = [segment for segment in segments if segment.kind != PT_NOTE]
    # Some small library has no place to spare: its GPU code stays.
    if len(segments) > len(elf.segments):
        segments = elf.segments

    out = bytearray()
    moved: dict[Segment, int] = {}
    for segment in sorted((each for each in segments if each.kind == PT_LOAD), key=lambda each: each.address):
        # The loader maps whole pages, so that offset and address must agree within one.
        out += bytes((segment.address - len(out)) % segment.alignment)
        moved[segment] = len(out)
        out += elf.data[segment.offset : segment.offset + segment.file_size]

    def relocate(segment: Segment) -> Segment:
        for load, offset in moved.items():
            if load.address <= segment.address < load.address + max(load.file_size, 1):
                return replace(segment, offset=offset + segment.address - load.address)
        return segment

    headers = [relocate(segment).pack() for segment in segments]
    out[elf.header_offset : elf.header_offset + sum(map(len, headers))] = b"".join(headers)
    struct.pack_into("<Q", out, 40, 0)  # where the section headers are
    struct.pack_into("<H", out, 56, len(headers))
    struct.pack_into("<HH", out, 60, 0, 0)  # how many section headers, and which names them

    # A new file: the installer may have hard-linked the old one into its cache.
    new = path.with_suffix(".new")
    new.write_bytes(out)
    shutil.copymode(path, new)
    new.replace(path)
    return len(elf.data) - len(out)


@dataclass(frozen=True)
class Symbol:
    """One entry of a library's dynamic symbol table."""

    name: str
    version: str
    kind: str
    size: int
    defined: bool


def _readelf(*args: str | Path) -> str:
    return subprocess.run(["readelf", "--wide", *args], capture_output=True, text=True, check=True).stdout


def _symbols(library: Path) -> Iterator[Symbol]:
    for line in _readelf("--dyn-syms", library).splitlines():
        match line.split():
            # number, value, size, kind, binding, visibility, section, name@version
            case [number, _, size, kind, _, _, section, name, *_] if number.rstrip(":").isdigit():
                name, _, version = name.replace("@@", "@").partition("@")
                yield Symbol(name, version, kind, int(size, 0), section != "UND")


def _linked(library: Path) -> set[str]:
    """Returns the names of the libraries that a library is linked with."""
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("--dynamic", library)))


def stub_source(symbols: list[Symbol]) -> str:
    """Returns x86-64 assembly that defines symbols: functions return 1, objects are zeros.

    1 is an error in every CUDA library: cudaErrorInvalidValue, CUBLAS_STATUS_NOT_INITIALIZED, …
    """
    lines = [".text"]
    for symbol in symbols:
        name = f'"{symbol.name}"'
        lines.append(f".globl {name}")
        if symbol.kind in {"OBJECT", "TLS"}:
            section = '.tbss,"awT",@nobits' if symbol.kind == "TLS" else '.bss,"aw",@nobits'
            size = max(symbol.size, 8)
            lines += [f".section {section}", ".balign 16", f".type {name},@object", f".size {name},{size}"]
            lines += [f"{name}:", f".zero {size}", ".text"]
        else:
            lines += [f".type {name},@function", f"{name}:", "movl $1, %eax", "ret"]
    return "\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""])


def version_script(symbols: list[Symbol]) -> str:
    """Returns the linker's version script that gives symbols the versions they had."""
    versions: dict[str, list[str]] = defaultdict(list)
    for symbol in symbols:
        if symbol.version:
            versions[symbol.version].append(symbol.name)
    return "".join(
        f"{version} {{ global: {' '.join(f'{chr(34)}{name}{chr(34)};' for name in names)} }};\n"
        for version, names in versions.items()
    )


def write_stub(library: Path, symbols: list[Symbol]) -> None:
    """Writes a shared library that defines the given symbols over another of the same name."""
    with tempfile.TemporaryDirectory() as folder:
        source, script, stub = (Path(folder) / name for name in ("stub.s", "stub.map", library.name))
        source.write_text(stub_source(symbols))
        script.write_text(version_script(symbols))
        subprocess.run(["as", source, "-o", source.with_suffix(".o")], check=True)
        versions = [f"--version-script={script}"] if script.stat().st_size else []
        subprocess.run(
            ["ld", "-shared", f"-soname={library.name}", *versions, source.with_suffix(".o"), "-o", stub], check=True
        )
        library.unlink()
        shutil.copy(stub, library)


def stub_cuda_libraries(site_packages: Path) -> None:
    """Replaces the CUDA libraries that libtorch is linked with by stubs, and deletes the others.

    Args:
        site_packages: Where torch and the nvidia packages are installed.
    """
    clients = list((site_packages / "torch" / "lib").glob("*.so"))
    linked = set().union(*map(_linked, clients))
    wanted = {symbol.name for client in clients for symbol in _symbols(client) if not symbol.defined}
    for library in site_packages.glob("nvidia/*/lib/*.so*"):
        if KEPT_LIBRARIES.fullmatch(library.name):
            continue
        if library.name in linked:
            # By name: a library may define one name in several versions.
            symbols = {each.name: each for each in _symbols(library) if each.defined and each.name in wanted}
            write_stub(library, list(symbols.values()))
        else:
            library.unlink()


def remove_unused(site_packages: Path) -> None:
    """Deletes the files and folders that only a GPU or a compiler uses."""
    for pattern in UNUSED:
        for path in site_packages.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> None:
    """Slims one environment and prints its size before and after."""
    parser = argparse.ArgumentParser(description="Removes from an installed torch what a CPU never runs.")
    parser.add_argument("site_packages", type=Path)
    site_packages: Path = parser.parse_args().site_packages
    if not (site_packages / "torch" / "lib").is_dir():
        parser.error(f"{site_packages}: no torch is installed there")
    before = size_of(site_packages)
    if (site_packages / "nvidia").is_dir():
        stub_cuda_libraries(site_packages)
    for library in (site_packages / "torch" / "lib").glob("libtorch*.so"):
        compact(library)
    remove_unused(site_packages)
    subprocess.run([sys.executable, "-c", CHECK], check=True)
    sys.stdout.write(f"{site_packages}: {before / 1e6:.0f} MB -> {size_of(site_packages) / 1e6:.0f} MB\n")


if __name__ == "__main__":
    main()
