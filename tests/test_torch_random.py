import numpy as np
import pytest

from fdiff.torch_random import CPUGenerator, CUDAGenerator, _philox, channels_last

SHAPES = [(n,) for n in range(1, 41)] + [(1, 4, 8, 8), (3,), (5,)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("seed", [42, -1])
def test_a_stream_of_the_cpu(reference, seed, dtype):
    expected = np.load(reference / "torch_random" / "draws.npz")[f"{seed}.{dtype}"]
    generator = CPUGenerator(seed)
    drawn = [generator.randn(shape, dtype) for shape in SHAPES] + [generator.rand(37, dtype)]
    assert all(part.dtype == dtype for part in drawn)
    flat = np.concatenate([part.astype(np.float64).ravel() for part in drawn])
    np.testing.assert_allclose(flat, expected, rtol=0, atol=5e-7)


def test_whole_numbers_of_the_cpu(reference):
    expected = np.load(reference / "torch_random" / "draws.npz")
    generator = CPUGenerator(7)
    for high in (1000, 2**28, 2**40):
        np.testing.assert_array_equal(generator.randint(-3, high, 9), expected[f"randint.{high}"])


def test_philox_answers_of_its_authors():
    counter = np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], np.uint64)[:, None]
    words = _philox(counter, (0xA4093822, 0x299F31D0))[:, 0]
    assert [int(word) for word in words] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    words = _philox(np.zeros((4, 1), np.uint64), (0, 0))[:, 0]
    assert [int(word) for word in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_published_draws_of_a_card():
    """torch.manual_seed(0); torch.randn(3, 4, device="cuda"), as several projects print it."""
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    np.testing.assert_allclose(CUDAGenerator(0).randn((3, 4)), expected, rtol=0, atol=2e-6)


def test_a_card_gives_each_thread_every_so_many_elements():
    """A small card walks in strides of its threads; the counters' numbers are those of any card."""
    small, large = CUDAGenerator(5, resident_threads=256), CUDAGenerator(5, resident_threads=2048)
    strided, first = small.randn(2048), large.randn(2048)
    np.testing.assert_array_equal(strided[:256], first[:256])  # counter (0, 0, i, 0), its first number
    second = large.randn(2048)
    np.testing.assert_array_equal(strided[1024:1280], second[:256])  # counter (1, 0, i, 0), its first number
    assert np.unique(strided).size == 2048
    np.testing.assert_array_equal(small.randn(3), large.randn(3))  # both have used two counters
    assert abs(strided.mean()) < 0.1
    assert abs(strided.std() - 1) < 0.1


def test_channels_last_draws_as_torch_lays_out():
    drawn = channels_last(CPUGenerator(3), (2, 5, 6, 4))
    np.testing.assert_array_equal(drawn, CPUGenerator(3).randn((2, 4, 5, 6)).transpose(0, 2, 3, 1))
    each = channels_last([CPUGenerator(3), CPUGenerator(4)], (2, 5, 6, 4))
    np.testing.assert_array_equal(each[1:], channels_last(CPUGenerator(4), (1, 5, 6, 4)))
    sound = channels_last(CPUGenerator(3), (1, 20, 2))
    np.testing.assert_array_equal(sound, CPUGenerator(3).randn((1, 2, 20)).swapaxes(1, 2))


def test_wrong_requests_are_told():
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        channels_last([CPUGenerator(0), CPUGenerator(1)], (3, 4, 4, 4))
    with pytest.raises(ValueError, match="not int32"):
        CPUGenerator(0).randn(3, np.int32)
    with pytest.raises(ValueError, match="64 bits"):
        CPUGenerator(2**64)
    with pytest.raises(ValueError, match="multiple of 256"):
        CUDAGenerator(0, resident_threads=100)
    with pytest.raises(ValueError, match="low < high"):
        CPUGenerator(0).randint(3, 3, 1)


@pytest.mark.parity
def test_a_long_stream_of_the_cpu_live():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for seed in (0, 42, 2**40 + 7, -5):
        theirs, ours = torch.Generator("cpu").manual_seed(seed), CPUGenerator(seed)
        for _ in range(60):
            shape = tuple(int(n) for n in rng.integers(1, 12, size=rng.integers(1, 5)))
            dtype = ["float32", "float16", "float64"][rng.integers(3)]
            expected = torch.randn(shape, generator=theirs, dtype=getattr(torch, dtype)).double().numpy()
            one_ulp = 2.0**-10 if dtype == "float16" else 0  # the last bit of float32 may turn a rounding
            np.testing.assert_allclose(ours.randn(shape, dtype), expected, rtol=one_ulp, atol=5e-7)
    theirs, ours = torch.Generator("cpu").manual_seed(1), CPUGenerator(1)
    expected = torch.randn(10**6, generator=theirs).numpy()
    np.testing.assert_allclose(ours.randn(10**6), expected, rtol=0, atol=5e-7)


@pytest.mark.parity
def test_bfloat16_live():
    torch, ml_dtypes = pytest.importorskip("torch"), pytest.importorskip("ml_dtypes")
    theirs, ours = torch.Generator("cpu").manual_seed(9), CPUGenerator(9)
    for draw in ("randn", "rand"):
        for size in (5, 16, 37, 1000):
            expected = getattr(torch, draw)(size, generator=theirs, dtype=torch.bfloat16).float().numpy()
            drawn = getattr(ours, draw)(size, ml_dtypes.bfloat16).astype(np.float32)
            np.testing.assert_allclose(drawn, expected, rtol=2.0**-7, atol=0)


@pytest.mark.parity
def test_a_card_live():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA card")
    card = torch.cuda.get_device_properties(0)
    resident = card.multi_processor_count * (card.max_threads_per_multi_processor // 256) * 256
    theirs, ours = torch.Generator("cuda").manual_seed(42), CUDAGenerator(42, resident)
    for size in (3, 256, 1000, 16384, 5 * resident + 77, 8):
        expected = torch.randn(size, generator=theirs, device="cuda").cpu().numpy()
        np.testing.assert_allclose(ours.randn(size), expected, rtol=0, atol=1e-5)
