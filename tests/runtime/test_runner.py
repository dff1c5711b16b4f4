"""orchestrator-run: its outputs, reports, errors and exit codes."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import _ggml_delegate
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator.native import NativeProgram
from tests.harness.pte import (
    ConvNet,
    conv_net_pte,
    dynamic_conv_net_pte,
    image,
    make_methods_pte,
    make_pte,
)

OK, RUN_FAILED, BAD_USAGE, BAD_MODEL, BAD_INPUT, OUTPUT_FAILED = range(6)


def run(*arguments: object, expect: int = OK) -> subprocess.CompletedProcess[str]:
    """Runs the runner; asserts its exit code, and that it fails with one line."""
    command = [str(_ggml_delegate.RUNNER), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == expect, result.stderr
    if expect == OK:
        assert result.stderr == ""
    else:
        assert result.stderr.startswith("orchestrator-run: ")
        assert result.stderr.count("\n") == 1
    return result


@pytest.fixture
def static_model(tmp_path: Path) -> Path:
    path = tmp_path / "static.pte"
    path.write_bytes(conv_net_pte())
    return path


@pytest.fixture
def dynamic_model(tmp_path: Path) -> Path:
    path = tmp_path / "dynamic.pte"
    path.write_bytes(dynamic_conv_net_pte())
    return path


def save(path: Path, tensor: Tensor) -> Path:
    np.save(path, tensor.numpy())
    return path


# Outputs


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_outputs_equal_pythons_bit_for_bit(
    dynamic_model: Path, tmp_path: Path, threads: int
) -> None:
    x = image(5)
    run(
        dynamic_model,
        *("--input", save(tmp_path / "x.npy", x)),
        *("--output", tmp_path / "y.npy"),
        *("--threads", threads, "--warmup", 1, "--runs", 3),
    )
    [expected] = NativeProgram(dynamic_model, num_threads=threads)(x.numpy())
    assert isinstance(expected, np.ndarray)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected, strict=True)


def test_ggml_outputs_equal_pythons_bit_for_bit(tmp_path: Path) -> None:
    model = tmp_path / "m.pte"
    model.write_bytes(make_pte(ConvNet(), (image(),), ggml=True, xnnpack=True))
    x = save(tmp_path / "x.npy", image())
    result = run(model, "--input", x, "--output", tmp_path / "y.npy", "--runs", 3)
    assert "GgmlBackend" in result.stdout
    [expected] = NativeProgram(model)(image().numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"],
)
def test_dtypes_pass_through_files(tmp_path: Path, dtype: str) -> None:
    x = np.array([[0, 1, 1], [1, 0, 7]]).astype(dtype)
    model = tmp_path / "m.pte"
    model.write_bytes(make_pte(lambda x: torch.cat([x, x]), (torch.from_numpy(x),)))
    np.save(tmp_path / "x.npy", x)
    run(model, "--input", tmp_path / "x.npy", "--output-dir", tmp_path / "out")
    output = np.load(tmp_path / "out" / "output_0.npy")
    np.testing.assert_array_equal(output, np.concatenate([x, x]), strict=True)


def test_bfloat16_travels_as_two_opaque_bytes(tmp_path: Path) -> None:
    x = torch.randn(3, 4).to(torch.bfloat16)
    model = tmp_path / "m.pte"
    model.write_bytes(make_pte(lambda x: torch.cat([x, x]), (x,)))
    np.save(tmp_path / "x.npy", x.view(torch.uint16).numpy().view("V2"))
    run(model, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    output = torch.from_numpy(np.load(tmp_path / "y.npy").view(np.uint16)).view(torch.bfloat16)
    assert torch.equal(output, torch.cat([x, x]))


def test_channels_last_is_c_order_in_files(tmp_path: Path) -> None:
    x = image()
    model = tmp_path / "m.pte"
    model.write_bytes(make_pte(nn.ReLU(), (x.to(memory_format=torch.channels_last),)))
    run(model, "--input", save(tmp_path / "x.npy", x), "--output", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), torch.relu(x).numpy())
    (tmp_path / "x.raw").write_bytes(x.numpy().tobytes())
    run(model, "--input-raw", tmp_path / "x.raw", "--output", tmp_path / "z.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), torch.relu(x).numpy())


def test_scalars_come_from_the_program_and_go_to_files(tmp_path: Path) -> None:
    def scale(x: Tensor, n: int) -> tuple[Tensor, int]:
        return x * n, x.shape[0]

    model = tmp_path / "m.pte"
    model.write_bytes(make_pte(scale, (torch.ones(2, 3), 3)))
    x = save(tmp_path / "x.npy", torch.ones(2, 3))
    result = run(model, "--input", x, "--output-dir", tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "output_0.npy"), np.full((2, 3), 3.0))
    np.testing.assert_array_equal(
        np.load(tmp_path / "output_1.npy"), np.array(2, np.int64), strict=True
    )
    assert "input 1: int 3 from program" in result.stdout
    assert "output 1: int 2" in result.stdout


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_tensors_without_dimensions_or_elements(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    model = tmp_path / "m.pte"
    model.write_bytes(make_pte(lambda x: x + 1, (x,)))
    run(model, "--input", save(tmp_path / "x.npy", x), "--output", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), (x + 1).numpy(), strict=True)


def test_second_method_runs_by_name(tmp_path: Path) -> None:
    x = torch.tensor([-1.0, 2.0])
    model = tmp_path / "m.pte"
    model.write_bytes(make_methods_pte({"up": (torch.relu, (x,)), "down": (torch.neg, (x,))}))
    x_file = save(tmp_path / "x.npy", x)
    run(model, "--method", "down", "--input", x_file, "--output", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), -x.numpy())


def test_seeded_inputs_are_the_same_each_time(static_model: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(static_model, "--seed", seed, "--output", tmp_path / f"{name}.npy")
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_seed_fills_in_for_missing_files(tmp_path: Path) -> None:
    model = tmp_path / "m.pte"
    model.write_bytes(make_pte(lambda x, y: (x, y), (torch.zeros(3), torch.zeros(3))))
    x = save(tmp_path / "x.npy", torch.full((3,), 5.0))
    run(model, "--input", x, expect=BAD_INPUT)
    run(model, "--input", x, "--seed", 4, "--output-dir", tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "output_0.npy"), np.full(3, 5.0))
    made_up = np.load(tmp_path / "output_1.npy")
    assert np.all((made_up >= -1) & (made_up < 1))
    assert len(set(made_up)) > 1


def test_shape_option_sets_dynamic_sizes(dynamic_model: Path, tmp_path: Path) -> None:
    run(dynamic_model, "--shape", "0:3x3x8x8", "--output", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").shape == (3, 4)
    raw = tmp_path / "x.raw"
    raw.write_bytes(image(3).numpy().tobytes())
    run(dynamic_model, "--shape", "0:3x3x8x8", "--input-raw", raw, "--output", tmp_path / "z.npy")
    [expected] = NativeProgram(dynamic_model)(image(3).numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), expected)


# Reports


def test_help_names_every_option_and_exit_code() -> None:
    text = run("--help").stdout
    for option in ("--input ", "--seed", "--output-dir", "--etdump", "--threads", "--list"):
        assert option in text
    assert "5 a result cannot be written" in text


def test_list_describes_methods(dynamic_model: Path) -> None:
    assert run(dynamic_model, "--list").stdout == (
        "forward: XnnpackBackend\n"
        "  input 0: float32 up to [8, 3, 8, 8]\n"
        "  output 0: float32 up to [8, 4]\n"
    )


def test_list_describes_methods_that_cannot_run_here(tmp_path: Path) -> None:
    model = tmp_path / "m.pte"
    model.write_bytes(conv_net_pte().replace(b"XnnpackBackend", b"AbsentBackend!"))
    text = run(model, "--list").stdout
    assert text.startswith("forward: AbsentBackend!\n  input 0: float32 [2, 3, 8, 8]\n")
    assert "not loadable here" in text


def test_text_and_json_report_the_run(static_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    result = run(static_model, "--runs", 20, "--warmup", 2, "--threads", 1, "--json", path)
    assert "static.pte: forward, 1 thread, XnnpackBackend" in result.stdout
    assert "latency of 20 runs after 2 for warm-up" in result.stdout
    report = json.loads(path.read_text())
    assert report["model"] == str(static_model)
    assert (report["method"], report["backends"]) == ("forward", ["XnnpackBackend"])
    assert (report["threads"], report["runs"], report["warmup"]) == (1, 20, 2)
    assert report["load_us"] > 0
    for key in ("call_us", "execute_us"):
        times: dict[str, float] = report[key]
        ordered = [times[name] for name in ("min", "p50", "p90", "p99", "max")]
        assert ordered == sorted(ordered)
        assert 0 < times["min"] <= times["mean"] <= times["max"]
    assert report["inputs"] == [{"expected": "float32 [2, 3, 8, 8]", "source": "seed 0"}]
    assert report["outputs"] == [{"value": "float32 [2, 4]", "file": ""}]


def test_json_on_standard_output_stands_alone(static_model: Path) -> None:
    assert json.loads(run(static_model, "--json", "-").stdout)["runs"] == 1


def test_json_escapes_names(tmp_path: Path) -> None:
    model = tmp_path / 'quote " backslash \\ tab\t.pte'
    model.write_bytes(conv_net_pte())
    assert json.loads(run(model, "--json", "-").stdout)["model"] == str(model)


def test_etdump_is_a_profile(static_model: Path, tmp_path: Path) -> None:
    from executorch.devtools import Inspector

    path = tmp_path / "profile.etdump"
    run(static_model, "--etdump", path, "--runs", 2)
    blocks = Inspector(etdump_path=str(path)).event_blocks
    assert any(event.name == "Method::execute" for block in blocks for event in block.events)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a program file (.pte) is required"),
        (["m.pte", "n.pte"], "not expected: n.pte"),
        (["m.pte", "--speed", "9"], "not expected: 9 --speed"),
        (["m.pte", "--runs"], "--runs: 1 required"),
        (["m.pte", "--runs", "0"], "--runs: Value 0 not in range 1 to 2147483647"),
        (["m.pte", "--runs=many"], "--runs: Value many not in range"),
        (["m.pte", "--runs", "99999999999"], "--runs: Value 99999999999 not in range"),
        (["m.pte", "--threads", "-1"], "--threads: Value -1 not in range 0"),
        (["m.pte", "--seed", "-1"], "--seed: Value -1 not in range 0"),
        (["m.pte", "--shape", "3x3"], "--shape: expected I:AxBxC"),
        (["m.pte", "--shape", "0:3x-3"], "--shape: expected I:AxBxC, found '0:3x-3'"),
        (["m.pte", "--output", "a", "--output-dir", "b"], "--output-dir excludes --output"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    assert message in run(*arguments, expect=BAD_USAGE).stderr


def test_unknown_method_is_wrong_usage(static_model: Path) -> None:
    result = run(static_model, "--method", "backward", expect=BAD_USAGE)
    assert "no method 'backward'; it has: forward" in result.stderr


def test_too_many_outputs_are_wrong_usage(static_model: Path) -> None:
    result = run(static_model, "--output", "a.npy", "--output", "b.npy", expect=BAD_USAGE)
    assert "has 1 outputs, found 2 files" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "AccessFailed"),
        (b"", "not a usable program (InvalidArgument)"),
        (b"not a program " * 20, "not a usable program (InvalidProgram)"),
        (conv_net_pte, "not a usable program (InvalidProgram)"),
    ],
    ids=["missing", "empty", "other", "truncated"],
)
def test_model_that_cannot_be_loaded(tmp_path: Path, content: Any, message: str) -> None:
    model = tmp_path / "m.pte"
    if content is not None:
        model.write_bytes(content()[:-8] if callable(content) else content)
    stderr = run(model, expect=BAD_MODEL).stderr
    assert message in stderr
    assert str(model) in stderr
    run(model, "--list", expect=BAD_MODEL)


def test_missing_backend_is_a_bad_model(tmp_path: Path) -> None:
    model = tmp_path / "m.pte"
    model.write_bytes(conv_net_pte().replace(b"XnnpackBackend", b"AbsentBackend!"))
    assert "AbsentBackend!" in run(model, expect=BAD_MODEL).stderr


def test_failing_method_is_told_from_a_bad_input(dynamic_model: Path, tmp_path: Path) -> None:
    # The file says only that the input is dynamic, so a wrong channel count reaches XNNPACK.
    x = save(tmp_path / "x.npy", torch.zeros(2, 1, 8, 8))
    assert "failed while running" in run(dynamic_model, "--input", x, expect=RUN_FAILED).stderr


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 8, 8)), "holds float64 [2, 3, 8, 8]"),
        (np.zeros((2, 3, 8), np.float32), "found [2, 3, 8]"),
        (np.zeros((3, 3, 8, 8), np.float32), "expected float32 [2, 3, 8, 8], found [3, 3, 8, 8]"),
        (np.asfortranarray(np.zeros((2, 3, 8, 8), np.float32)), "Fortran order"),
        (np.zeros((2, 3, 8, 8), ">f4"), "dtype '>f4'"),
        (np.zeros((2, 3, 8, 8), np.complex64), "dtype '<c8'"),
        (np.zeros((2, 3), "U4"), "dtype '<U4'"),
    ],
)
def test_arrays_that_do_not_fit(
    static_model: Path, tmp_path: Path, array: np.ndarray[Any, Any], message: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    result = run(static_model, "--input", tmp_path / "x.npy", expect=BAD_INPUT)
    assert message in result.stderr


def test_wrong_number_of_files(static_model: Path, tmp_path: Path) -> None:
    x = save(tmp_path / "x.npy", image())
    result = run(static_model, "--input", x, "--input", x, expect=BAD_INPUT)
    assert "takes 1 tensors, found 2 input files" in result.stderr


def test_raw_file_of_another_size(static_model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(b"\0" * 100)
    result = run(static_model, "--input-raw", tmp_path / "x.raw", expect=BAD_INPUT)
    assert "1536 bytes" in result.stderr
    assert "has 100" in result.stderr


@pytest.mark.parametrize("option", ["--input", "--input-raw"])
def test_input_that_is_no_file(static_model: Path, tmp_path: Path, option: str) -> None:
    for path, message in ((tmp_path / "gone", "does not exist"), (tmp_path, "not a regular file")):
        assert message in run(static_model, option, path, expect=BAD_INPUT).stderr


@pytest.mark.parametrize("shape", ["0:9x3x8x8", "0:2x3x8", "1:2x3", "0:9223372036854775807x3x8x8"])
def test_shape_beyond_the_bounds(dynamic_model: Path, shape: str) -> None:
    run(dynamic_model, "--shape", shape, expect=BAD_INPUT)


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """A .npy file of any header."""
    text = header.encode("latin1")
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 8, 8), }"
DATA = b"\0" * 1536


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY", "not a .npy file"),
        (b"\x93NUMPX" + npy(GOOD, DATA)[6:], "not a .npy file"),
        (npy(GOOD, DATA, version=3), "version 3"),
        (b"\x93NUMPY\x02\0\x10\0", "ends within"),
        (b"\x93NUMPY\x01\0\xff\xff{", "header of 65535 bytes"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{", "header of 4294967295 bytes"),
        (npy(""), "malformed"),
        (npy("{"), "malformed"),
        (npy("{}"), "malformed"),
        (npy(GOOD[:-1], DATA), "malformed"),
        (npy(GOOD + "}", DATA), "malformed"),
        (npy(GOOD.replace("'descr'", "'dtype'"), DATA), "malformed"),
        (npy(GOOD.replace("'<f4'", "'<f4"), DATA), "malformed"),
        (npy(GOOD.replace("'<f4'", "[('a', '<f4')]"), DATA), "malformed"),
        (npy(GOOD.replace("False", "0"), DATA), "malformed"),
        (npy(GOOD.replace("(2,", "(-2,"), DATA), "malformed"),
        (npy(GOOD.replace("(2,", "(2.0,"), DATA), "malformed"),
        (npy(GOOD.replace("(2,", "(99999999999999999999,"), DATA), "malformed"),
        (npy(GOOD.replace("(2, 3, 8, 8)", "(" + "1, " * 17 + ")"), DATA), "malformed"),
        (npy(GOOD.replace("}", "'shape': (2,), }"), DATA), "malformed"),
        (npy(GOOD.replace("'shape'", "'\0'"), DATA), "malformed"),
        (npy(GOOD.replace("(2,", f"({2**40}, {2**40},"), DATA), "too large"),
        (npy(GOOD.replace("(2,", f"({2**40},"), DATA), "holds 1536 bytes of data"),
        (npy(GOOD, DATA[:-1]), "holds 1535 bytes of data, expected 1536"),
        (npy(GOOD, DATA + b"\0"), "holds 1537 bytes of data, expected 1536"),
    ],
)
def test_malformed_npy_files(
    static_model: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    stderr = run(static_model, "--input", path, expect=BAD_INPUT).stderr
    assert message in stderr
    assert str(path) in stderr


@pytest.mark.parametrize("version", [1, 2])
def test_npy_headers_in_any_spelling(static_model: Path, tmp_path: Path, version: int) -> None:
    spelled = '{"shape":(2,3,8,8),\t"fortran_order" : False , "descr":"<f4"}   \n'
    (tmp_path / "x.npy").write_bytes(npy(spelled, DATA, version))
    run(static_model, "--input", tmp_path / "x.npy")


def test_output_that_cannot_be_written(static_model: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "y"
    for option in ("--output", "--json", "--etdump"):
        stderr = run(static_model, option, gone, expect=OUTPUT_FAILED).stderr
        assert f"'{gone}' cannot be written" in stderr
    (tmp_path / "file").touch()
    run(static_model, "--output-dir", tmp_path / "file", expect=OUTPUT_FAILED)


def test_output_replaces_a_file_whole(static_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "y.npy"
    path.write_bytes(b"x" * 10_000)
    run(static_model, "--output", path)
    assert np.load(path).shape == (2, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["static.pte", "y.npy"]


def test_device_is_written_in_place(static_model: Path) -> None:
    stderr = run(static_model, "--output", "/dev/full", expect=OUTPUT_FAILED).stderr
    assert "No space left" in stderr
    assert Path("/dev/full").is_char_device()


def test_libraries_that_bring_delegates(tmp_path: Path) -> None:
    """What is loaded already, as ExecuTorch's own, may be loaded once more."""
    program = tmp_path / "program.pte"
    program.write_bytes(conv_net_pte())
    library = Path(_ggml_delegate.RUNNER).parents[1] / "libggml_backend.so"
    assert library.exists()
    run(program, "--load", library, "--load", library)
    missing = tmp_path / "libmissing.so"
    failed = run(program, "--load", missing, expect=BAD_MODEL)
    assert "--load: " in failed.stderr
    assert "libmissing.so: cannot open shared object file" in failed.stderr
