"""NativeProgram: loading, metadata, running, errors, threads."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from orchestrator.native import (
    ExecuTorchError,
    MethodInfo,
    NativeProgram,
    ScalarInfo,
    TensorInfo,
)
from tests.harness.pte import (
    ConvNet,
    conv_net_pte,
    dynamic_conv_net_pte,
    image,
    make_methods_pte,
    make_pte,
)

EAGER = ConvNet()
TOLERANCE = 1e-5
XNNPACK = "XnnpackBackend"


@pytest.fixture(scope="module")
def static_pte() -> bytes:
    return conv_net_pte()


@pytest.fixture(scope="module")
def dynamic_pte() -> bytes:
    return dynamic_conv_net_pte()


@pytest.fixture(scope="module")
def scaled_pte() -> bytes:
    """Takes x, an int, a float and a bool; returns a tensor, an int, and x's first size."""

    def scale(x: Tensor, n: int, f: float, flag: bool) -> tuple[Tensor, int, int]:
        return x * n + f, n, x.shape[0]

    return make_pte(scale, (torch.zeros(2, 3), 3, 2.5, True))


def assert_close(actual: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(actual), expected, rtol=TOLERANCE, atol=TOLERANCE)


def expected_of(x: Tensor) -> Tensor:
    with torch.no_grad():
        return EAGER(x)


# Loading


def test_path_and_bytes_load_the_same_program(static_pte: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(static_pte)
    sources = [str(path), path, static_pte, bytearray(static_pte), memoryview(static_pte)]
    outputs = [NativeProgram(source)(image())[0] for source in sources]
    assert_close(outputs[0], expected_of(image()))
    assert all(torch.equal(output, outputs[0]) for output in outputs[1:])


def test_bytes_live_as_long_as_the_program(static_pte: bytes) -> None:
    program = NativeProgram(bytes(bytearray(static_pte)))
    gc.collect()
    _fill = [bytes(len(static_pte)) for _ in range(16)]
    assert_close(program(image())[0], expected_of(image()))


def test_writable_bytes_may_change_after_loading(static_pte: bytes) -> None:
    source = bytearray(static_pte)
    program = NativeProgram(source)
    source[:] = bytes(len(source))
    assert_close(program(image())[0], expected_of(image()))


def test_unaligned_bytes_load(static_pte: bytes) -> None:
    shifted = memoryview(b"\0" + static_pte)[1:]
    assert_close(NativeProgram(shifted)(image())[0], expected_of(image()))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pte"):
        NativeProgram(tmp_path / "nowhere.pte")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExecuTorchError, match=str(tmp_path)):
        NativeProgram(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 4, 8, 63, 64, 200, 1000, 2000, -4096, -100, -1])
def test_truncated_program_is_refused(static_pte: bytes, tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.pte"
    path.write_bytes(static_pte[:size])
    for source in (str(path), static_pte[:size]):
        with pytest.raises(ExecuTorchError, match="not a usable program") as caught:
            NativeProgram(source)
        assert caught.value.code in ("InvalidProgram", "InvalidArgument")
        assert caught.value.log


def test_other_content_is_refused() -> None:
    with pytest.raises(ExecuTorchError, match="identifier") as caught:
        NativeProgram(b"not a program " * 100)
    assert caught.value.code == "InvalidProgram"


def test_corrupt_tables_are_refused(static_pte: bytes) -> None:
    corrupt = bytearray(static_pte)
    corrupt[100:400] = b"\xff" * 300
    with pytest.raises(ExecuTorchError, match="corrupt"):
        NativeProgram(corrupt)


@pytest.mark.parametrize("source", [None, 3, ["model.pte"]])
def test_source_of_another_type_is_refused(source: Any) -> None:
    with pytest.raises(TypeError, match=type(source).__name__):
        NativeProgram(source)


def test_missing_backend_is_named_with_those_there_are(static_pte: bytes) -> None:
    patched = static_pte.replace(XNNPACK.encode(), b"AbsentBackend!")
    program = NativeProgram(patched)
    assert program.backends() == ("AbsentBackend!",)
    with pytest.raises(ExecuTorchError, match=f"AbsentBackend!.*{XNNPACK}") as caught:
        program(image())
    assert caught.value.code == "NotFound"


def test_missing_kernel_is_named() -> None:
    pte = make_pte(torch.relu, (torch.zeros(3),)).replace(b"aten::relu", b"aten::zelu")
    with pytest.raises(ExecuTorchError, match=r"aten::zelu\.out") as caught:
        NativeProgram(pte).method()
    assert caught.value.code == "OperatorMissing"
    assert any("aten::zelu.out" in line for line in caught.value.log)


# Metadata


def test_method_info_of_a_static_program(static_pte: bytes) -> None:
    expected = MethodInfo(
        name="forward",
        inputs=(TensorInfo("float32", (2, 3, 8, 8), (0, 1, 2, 3), False, False),),
        outputs=(TensorInfo("float32", (2, 4), (0, 1), False, False),),
        backends=(XNNPACK,),
    )
    program = NativeProgram(static_pte)
    assert program.method() == expected
    assert program.method_names == ("forward",)
    assert "forward" in repr(program)


def test_method_info_gives_upper_bounds_of_dynamic_shapes(dynamic_pte: bytes) -> None:
    info = NativeProgram(dynamic_pte).method()
    assert isinstance(info.inputs[0], TensorInfo)
    assert (info.inputs[0].sizes, info.inputs[0].is_dynamic) == ((8, 3, 8, 8), True)
    assert isinstance(info.outputs[0], TensorInfo)
    assert (info.outputs[0].sizes, info.outputs[0].is_dynamic) == ((8, 4), True)


def test_method_info_tells_memory_plans() -> None:
    info = NativeProgram(conv_net_pte(planned=True)).method()
    assert all(isinstance(v, TensorInfo) and v.is_memory_planned for v in info.inputs)
    assert all(isinstance(v, TensorInfo) and v.is_memory_planned for v in info.outputs)


def test_method_info_of_scalars(scaled_pte: bytes) -> None:
    info = NativeProgram(scaled_pte).method()
    assert info.inputs[1:] == (
        ScalarInfo("int", 3),
        ScalarInfo("float", 2.5),
        ScalarInfo("bool", True),
    )
    assert info.outputs[1:] == (ScalarInfo("int"), ScalarInfo("int"))


def test_several_methods() -> None:
    x = torch.tensor([-1.0, 2.0])
    program = NativeProgram(make_methods_pte({"up": (torch.relu, (x,)), "down": (torch.neg, (x,))}))
    assert sorted(program.method_names) == ["down", "up"]
    assert torch.equal(program.run("up", [x])[0], torch.relu(x))
    assert torch.equal(program.run("down", [x])[0], -x)
    program.unload("up")
    assert torch.equal(program.run("up", [x])[0], torch.relu(x))


def test_unknown_method_is_an_error_that_lists_the_known(static_pte: bytes) -> None:
    program = NativeProgram(static_pte)
    calls: list[Callable[[], Any]] = [
        lambda: program.run("backward", [image()]),
        lambda: program.method("backward"),
        lambda: program.backends("backward"),
        lambda: program.unload("backward"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="no method 'backward'; it has: forward"):
            call()


# Running


@pytest.mark.parametrize("planned", [False, True])
def test_outputs_match_eager_and_are_new(planned: bool) -> None:
    program = NativeProgram(conv_net_pte(planned=planned))
    first, second = image(seed=1), image(seed=2)
    [output] = program(first)
    kept = output.clone()
    [other] = program(second)
    assert_close(output, expected_of(first))
    assert_close(other, expected_of(second))
    assert torch.equal(output, kept)
    output.fill_(0)
    assert_close(program(first)[0], expected_of(first))


def test_inputs_are_left_alone(static_pte: bytes) -> None:
    x = image()
    kept = x.clone()
    NativeProgram(static_pte)(x)
    assert torch.equal(x, kept)


def test_outputs_are_of_the_inputs_kind(static_pte: bytes) -> None:
    program = NativeProgram(static_pte)
    [tensor] = program(image())
    [array] = program(image().numpy())
    assert isinstance(tensor, Tensor)
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, tensor.numpy())
    array += 1  # outputs are writable


def test_mixed_inputs_give_tensors() -> None:
    program = NativeProgram(make_pte(torch.add, (torch.zeros(3), torch.zeros(3))))
    [output] = program(torch.ones(3), np.ones(3, np.float32))
    assert torch.equal(output, torch.full((3,), 2.0))


def test_numpy_needs_no_torch(static_pte: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(static_pte)
    code = (
        "import sys, numpy\n"
        "from orchestrator.native import NativeProgram\n"
        f"output, = NativeProgram({str(path)!r})(numpy.zeros((2, 3, 8, 8), numpy.float32))\n"
        "print(output.shape, 'torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("(2, 4) False\n", "")


def test_parameters_and_tensors_with_gradients_are_inputs(static_pte: bytes) -> None:
    program = NativeProgram(static_pte)
    expected = program(image())[0]
    assert torch.equal(program(nn.Parameter(image()))[0], expected)
    assert torch.equal(program(image().requires_grad_())[0], expected)


@pytest.mark.parametrize("batch", [1, 2, 5, 8, 3])
@pytest.mark.parametrize("planned", [False, True])
def test_dynamic_outputs_have_the_size_of_the_run(batch: int, planned: bool) -> None:
    program = NativeProgram(dynamic_conv_net_pte(planned=planned))
    for size in (8, batch, 1, batch):
        x = image(size, seed=size)
        assert_close(program(x)[0], expected_of(x))


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.bool,
    ],
    ids=str,
)
def test_dtypes_pass_unchanged(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 1, 1], [1, 0, 7]]).to(dtype)
    program = NativeProgram(make_pte(lambda x: torch.cat([x, x]), (x,)))
    [output] = program(x)
    assert output.dtype == dtype
    assert torch.equal(output, torch.cat([x, x]))
    if dtype != torch.bfloat16:
        [array] = program(x.numpy())
        np.testing.assert_array_equal(array, torch.cat([x, x]).numpy(), strict=True)


def test_bfloat16_output_cannot_be_an_array() -> None:
    program = NativeProgram(make_pte(lambda x: x.to(torch.bfloat16), (torch.zeros(3),)))
    with pytest.raises(TypeError, match="output 0 is bfloat16"):
        program(np.zeros(3, np.float32))
    assert program(torch.ones(3))[0].dtype == torch.bfloat16


@pytest.mark.parametrize("xnnpack", [False, True])
def test_channels_last_keeps_its_layout(xnnpack: bool) -> None:
    x = image().to(memory_format=torch.channels_last)
    program = NativeProgram(make_pte(nn.ReLU(), (x,), xnnpack=xnnpack))
    info = program.method()
    assert isinstance(info.inputs[0], TensorInfo)
    assert info.inputs[0].dim_order == (0, 2, 3, 1)
    assert info.inputs[0].strides == x.stride()
    [output] = program(x)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(output, torch.relu(x))


def test_other_layouts_are_refused_or_copied_on_request() -> None:
    x = image()
    last = x.to(memory_format=torch.channels_last)
    contiguous = NativeProgram(make_pte(nn.ReLU(), (x,)))
    channels_last = NativeProgram(make_pte(nn.ReLU(), (last,)))
    with pytest.raises(ValueError, match=r"call \.contiguous\(\)"):
        contiguous(last)
    with pytest.raises(ValueError, match=r"memory_format=torch\.channels_last"):
        channels_last(x)
    for program, other in ((contiguous, last), (channels_last, x)):
        for value in (other, other.numpy()):
            [output] = program.run("forward", [value], relayout=True)
            assert torch.equal(torch.as_tensor(output), torch.relu(x))


def test_strides_of_single_sizes_do_not_matter() -> None:
    x = torch.randn(1, 4, 1, 3)
    program = NativeProgram(make_pte(torch.relu, (x,)))
    odd = torch.as_strided(x, x.shape, (999, 3, 77, 1))
    assert torch.equal(program(odd)[0], torch.relu(x))


@pytest.mark.parametrize("shape", [(), (0, 3), (1,)])
def test_tensors_without_dimensions_or_elements(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    program = NativeProgram(make_pte(lambda x: x + 1, (x,)))
    for value in (x, x.numpy()):
        [output] = program(value)
        assert torch.equal(torch.as_tensor(output), x + 1)


def test_numpy_scalars_are_tensors_without_dimensions() -> None:
    program = NativeProgram(make_pte(lambda x: x + 1, (torch.tensor(1.0),)))
    assert program(np.float32(4))[0] == 5


def test_scalars_in_and_out(scaled_pte: bytes) -> None:
    output, n, size = NativeProgram(scaled_pte)(torch.ones(2, 3), 3, 2.5, True)
    assert torch.equal(output, torch.full((2, 3), 5.5))
    assert (n, size) == (3, 2)


def test_an_int_is_a_float() -> None:
    program = NativeProgram(make_pte(lambda x, f: x * f, (torch.ones(3), 2.0)))
    assert torch.equal(program(torch.ones(3), 2)[0], torch.full((3,), 2.0))


@pytest.mark.parametrize("planned", [False, True])
def test_outputs_that_share_a_value_are_separate(planned: bool) -> None:
    class Sharing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("constant", torch.arange(3.0))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = x + 1
            return x, y, y, self.constant

    x = torch.randn(3)
    program = NativeProgram(make_pte(Sharing(), (x,), planned=planned))
    for _ in range(2):
        outputs = program(x)
        expected = Sharing()(x)
        assert all(map(torch.equal, outputs, expected))
        for output in outputs:
            output.fill_(-1)


# Wrong inputs


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([], ValueError, "method 'forward': expected 1 inputs, found 0"),
        ([image(), image()], ValueError, "expected 1 inputs, found 2"),
        ([image().double()], TypeError, r"input 0: expected float32 .*found float64 tensor"),
        ([image().long()], TypeError, "found int64 tensor"),
        ([image()[0]], ValueError, r"found float32 tensor \[3, 8, 8\]"),
        ([image(9)], ValueError, r"up to \[8, 3, 8, 8\], found float32 tensor \[9, 3, 8, 8\]"),
        ([image().reshape(2, 1, 24, 8)], ValueError, r"found float32 tensor \[2, 1, 24, 8\]"),
        ([image().reshape(1, 6, 8, 8)], ValueError, r"found float32 tensor \[1, 6, 8, 8\]"),
        ([image().permute(0, 1, 3, 2)], ValueError, r"found strides \[192, 64, 1, 8\]"),
        ([image(4)[::2]], ValueError, r"strides \[192, 64, 8, 1\], found strides \[384"),
        ([image().numpy()[:, :, ::-1]], ValueError, r"found strides \[192, 64, -8, 1\]"),
        ([image()[:, :1].expand(2, 3, 8, 8)], ValueError, r"found strides \[192, 0, 8, 1\]"),
        ([image().to("meta")], TypeError, "on the CPU, found one on meta"),
        ([image().to_sparse()], TypeError, "layout torch.sparse_coo"),
        ([image().numpy().astype(">f4")], TypeError, "byte order"),
        ([image().to(torch.complex64)], TypeError, "complex64"),
        ([np.array([object()])], TypeError, "object"),
        ([1], TypeError, r"found int 1"),
        ([None], TypeError, "found None"),
        (["image"], TypeError, "found str 'image'"),
        ([[1.0, 2.0]], TypeError, "input 0: expected a tensor or a scalar, found list"),
    ],
)
def test_wrong_tensors_are_named(
    dynamic_pte: bytes, inputs: list[Any], error: type[Exception], message: str
) -> None:
    program = NativeProgram(dynamic_pte)
    with pytest.raises(error, match=message):
        program.run("forward", inputs)
    assert_close(program(image())[0], expected_of(image()))


def test_dynamic_shape_bounds_hold_in_each_dimension() -> None:
    rows = Dim("rows", min=1, max=8)
    x = torch.zeros(2, 10)
    program = NativeProgram(make_pte(torch.relu, (x,), dynamic_shapes=(({0: rows},),)))
    with pytest.raises(ValueError, match=r"up to \[8, 10\], found float32 tensor \[2, 40\]"):
        program(torch.zeros(2, 40))


@pytest.mark.parametrize(
    ("scalars", "error", "message"),
    [
        ((4, 2.5, True), ValueError, r"input 1: expected int 3 .*found 4"),
        ((3, 2.0, True), ValueError, r"input 2: expected float 2\.5 .*found 2\.0"),
        ((3, 2.5, False), ValueError, r"input 3: expected bool True .*found False"),
        ((3.0, 2.5, True), TypeError, r"input 1: expected int 3, found float 3\.0"),
        ((3, 2.5, 1), TypeError, "input 3: expected bool True, found int 1"),
        ((True, 2.5, True), TypeError, "input 1: expected int 3, found bool True"),
        ((None, 2.5, True), TypeError, "input 1: expected int 3, found None"),
        ((torch.tensor(3), 2.5, True), TypeError, r"found int64 tensor \[\]"),
        ((1 << 70, 2.5, True), TypeError, "input 1: integers have 64 bits"),
    ],
)
def test_wrong_scalars_are_named(
    scaled_pte: bytes, scalars: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        NativeProgram(scaled_pte)(torch.zeros(2, 3), *scalars)


def test_a_delegates_failure_is_an_error_with_its_log(dynamic_pte: bytes) -> None:
    # The file says only that the input is dynamic, so a wrong channel count reaches XNNPACK.
    program = NativeProgram(dynamic_pte)
    with pytest.raises(ExecuTorchError, match="failed while running") as caught:
        program(image()[:, :1].contiguous())
    assert caught.value.code == "Internal"
    assert any("shape" in line for line in caught.value.log)
    assert_close(program(image())[0], expected_of(image()))


def test_nothing_is_printed(static_pte: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    program = NativeProgram(static_pte, num_threads=1)
    program(image())
    with pytest.raises(ValueError, match="expected 1 inputs"):
        program()
    with pytest.raises(ExecuTorchError):
        NativeProgram(static_pte[:100])
    assert capfd.readouterr() == ("", "")


def test_log_lines_are_kept_beside_executorchs_own_bindings(static_pte: bytes) -> None:
    import executorch.runtime  # registers a log handler of its own

    assert executorch.runtime.Runtime.get() is not None
    with pytest.raises(ExecuTorchError, match="File size is too small") as caught:
        NativeProgram(static_pte[:100])
    assert caught.value.log


# ggml


@pytest.fixture(scope="module")
def ggml_pte() -> bytes:
    """ConvNet on ggml, as far as it goes."""
    return make_pte(EAGER, (image(),), ggml=True)


def test_ggml_runs_with_every_thread_count(ggml_pte: bytes) -> None:
    programs = [NativeProgram(ggml_pte, num_threads=n) for n in (0, 1, 2, 1000)]
    assert all("GgmlBackend" in program.backends() for program in programs)
    for x in (image(), image(seed=1)):
        for program in programs:
            assert_close(program(x)[0], expected_of(x))


def test_importing_the_package_registers_ggml_with_executorch(
    ggml_pte: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(ggml_pte)
    torch.save(image(), tmp_path / "x.pt")
    code = (
        "import torch, ggml_delegate\n"
        "from executorch.runtime import Runtime\n"
        f"method = Runtime.get().load_program({str(path)!r}).load_method('forward')\n"
        f"print(method.execute([torch.load({str(tmp_path / 'x.pt')!r})])[0].tolist())\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert_close(torch.tensor(ast.literal_eval(result.stdout)), expected_of(image()))


# Threads


def run_in_threads(count: int, work: Callable[[int], None]) -> None:
    """Runs work(0) to work(count - 1) at once; raises what the first failing one raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def guarded(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_with_programs_of_their_own(dynamic_pte: bytes) -> None:
    def work(index: int) -> None:
        for step in range(20):
            program = NativeProgram(dynamic_pte, num_threads=index % 3)
            x = image(1 + (index + step) % 8, seed=index)
            assert_close(program(x)[0], expected_of(x))

    run_in_threads(8, work)


def test_threads_share_one_program(dynamic_pte: bytes) -> None:
    program = NativeProgram(dynamic_pte)

    def work(index: int) -> None:
        for step in range(50):
            x = image(1 + (index + step) % 8, seed=index)
            assert_close(program(x)[0], expected_of(x))

    run_in_threads(4, work)


def test_programs_with_different_thread_counts_run_in_turns(dynamic_pte: bytes) -> None:
    programs = [NativeProgram(dynamic_pte, num_threads=n) for n in (0, 1, 2, 3)]

    def work(index: int) -> None:
        for step in range(50):
            x = image(1 + step % 8, seed=index)
            assert_close(programs[index](x)[0], expected_of(x))

    run_in_threads(4, work)


def test_thread_counts_are_limited_to_the_pool(static_pte: bytes) -> None:
    whole_pool = NativeProgram(static_pte).num_threads
    assert whole_pool >= 1
    assert NativeProgram(static_pte, num_threads=1).num_threads == 1
    assert NativeProgram(static_pte, num_threads=10_000).num_threads == whole_pool


@pytest.mark.parametrize("num_threads", [-1, -100])
def test_negative_thread_count_is_refused(static_pte: bytes, num_threads: int) -> None:
    with pytest.raises(ValueError, match=f"found {num_threads}"):
        NativeProgram(static_pte, num_threads=num_threads)


def test_outputs_are_the_same_for_every_thread_count() -> None:
    x = torch.randn(1, 3, 32, 32)
    pte = make_pte(EAGER, (x,), xnnpack=True)
    outputs = [NativeProgram(pte, num_threads=n)(x)[0] for n in (0, 1, 2)]
    assert_close(outputs[0], expected_of(x))
    assert all(torch.equal(output, outputs[0]) for output in outputs)


# Times


def test_time_gives_one_duration_per_run(static_pte: bytes) -> None:
    times = NativeProgram(static_pte).time("forward", [image()], runs=5, warmup=2)
    assert len(times) == 5
    assert min(times) > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_time_can_bring_the_memory_into_the_caches_first(static_pte: bytes, threads: int) -> None:
    program = NativeProgram(static_pte, num_threads=threads)
    x = image()
    before = program(x)[0]
    times = program.time("forward", [x], runs=3, in_cache=True)
    assert len(times) == 3
    assert min(times) > 0
    assert torch.equal(program(x)[0], before)


def test_time_refuses_what_run_refuses(static_pte: bytes) -> None:
    program = NativeProgram(static_pte)
    with pytest.raises(ValueError, match="expected 1 inputs"):
        program.time("forward", [], runs=1)
    with pytest.raises(ValueError, match="runs: expected 1 or more"):
        program.time("forward", [image()], runs=0)


# Profiles


def test_etdump_records_runs(static_pte: bytes, tmp_path: Path) -> None:
    from executorch.devtools import Inspector

    program = NativeProgram(static_pte, etdump=True)
    for _ in range(2):
        program(image())
    path = tmp_path / "profile.etdump"
    path.write_bytes(program.etdump())
    blocks = Inspector(etdump_path=str(path)).event_blocks
    names = {event.name for block in blocks for event in block.events}
    assert "Method::execute" in names
    assert program.etdump() == b""
    program(image())
    assert program.etdump()


def test_etdump_of_a_program_that_records_none_is_an_error(static_pte: bytes) -> None:
    with pytest.raises(ValueError, match="load it with etdump"):
        NativeProgram(static_pte).etdump()
