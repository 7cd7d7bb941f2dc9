"""Recorded passes: once per shape, replayed with inputs copied in."""

import torch
from torch import Tensor

from dllm_kernels.decoder.graphs import Graphs

from .recordings import Recorder


def test_recorded_once_and_replayed() -> None:
    """Inputs are copied to where the recording reads them; results are the caller's own."""
    calls = []

    def work(x: Tensor, y: Tensor) -> Tensor:
        calls.append(x)
        return x * 2 + y.sum()

    recorder = Recorder()
    graphs = Graphs(work, recorder)
    inputs = [(torch.full((3,), float(i)), torch.full((2,), float(10 * i))) for i in range(4)]
    found = [graphs.run(each) for each in inputs]
    for (x, y), each in zip(inputs, found, strict=True):
        assert torch.equal(each, x * 2 + y.sum())
    assert (recorder.recorded, recorder.replayed, len(calls), len(graphs)) == (1, 4, 1, 1)
    assert calls[0].data_ptr() != inputs[0][0].data_ptr()
    assert torch.equal(inputs[0][0], torch.zeros(3))


def test_recorded_again_for_other_shapes_and_dtypes() -> None:
    recorder = Recorder()
    graphs = Graphs(lambda x: x + 1, recorder)
    for x in (torch.zeros(3), torch.zeros(4), torch.zeros(3).int(), torch.ones(3), torch.ones(3, 1)):
        assert torch.equal(graphs.run([x]), x + 1)
    assert (recorder.recorded, recorder.replayed) == (4, 5)


def test_few_recordings_are_kept() -> None:
    """The one not used for longest goes."""
    recorder = Recorder()
    graphs = Graphs(lambda x: x + 1, recorder, most=2)
    for size, recorded in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):
        assert torch.equal(graphs.run([torch.zeros(size)]), torch.ones(size))
        assert recorder.recorded == recorded
        assert len(graphs) <= 2


def test_another_state_voids_all_recordings() -> None:
    """What they know by address has moved."""
    place = [torch.zeros(2)]
    recorder = Recorder()
    graphs = Graphs(lambda x: x + place[0], recorder)
    assert torch.equal(graphs.run([torch.ones(2)], 0), torch.ones(2))
    place[0] = torch.full((2,), 5.0)
    assert torch.equal(graphs.run([torch.ones(2)], 1), torch.full((2,), 6.0))
    assert (recorder.recorded, len(graphs)) == (2, 1)
