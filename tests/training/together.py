"""What test_world.py runs in two processes: batch norm, micro-batches, a training, and the rest of one that a single process began."""

import contextlib
import copy
import sys

import torch
import torch.distributed as dist
from test_world import Line
from torch import nn

from imkd_edge import cli
from imkd_edge.training import world
from imkd_edge.training.config import TrainConfig
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.main import Run, train


def check_batch_norm() -> None:
    """Output, gradients and statistics of a batch of 3 are those of torch's batch norm, though one process has 2 and the other 1."""
    torch.manual_seed(0)
    x, slope = torch.randn(2, 3, 5, 4, 6)
    x = 100 + 3 * x  # far from 0: E[x^2] - E[x]^2 would lose its digits
    alone, shared = nn.BatchNorm2d(5), nn.Sequential(nn.BatchNorm2d(5))
    for network in (alone, shared):
        nn.init.uniform_(next(network.parameters()), 0.5, 2)
    shared.load_state_dict({f"0.{k}": v for k, v in alone.state_dict().items()})
    world.synchronised(shared)
    own = torch.tensor(world.share(range(3)))
    whole, part = x.clone().requires_grad_(), x[own].requires_grad_()
    wanted, y = alone(whole), shared(part)
    (wanted * slope).sum().backward()
    (y * slope[own]).sum().backward()
    close = torch.testing.assert_close
    close(y, wanted[own], rtol=1e-4, atol=1e-4)
    close(part.grad, whole.grad[own], rtol=1e-4, atol=1e-5)
    for (_, ours), (_, theirs) in zip(shared.named_parameters(), alone.named_parameters()):
        close(2 * world.mean(ours.grad), theirs.grad, rtol=1e-4, atol=1e-4)
    close(shared[0].running_var, alone.running_var, rtol=1e-5, atol=1e-5)
    close(shared[0].running_mean, alone.running_mean, rtol=1e-5, atol=1e-5)


def check_accumulation() -> None:
    """Micro-batches of two processes, whose gradients meet at the last one only, take the steps of whole batches."""
    batches = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(1))
    ends = []
    for parts, wrapped in ((1, False), (2, True)):
        stage, config = Line(), TrainConfig(batch=8, accumulate=parts, clip=0.5)
        pieces = [
            piece[world.share(range(len(piece)))] if wrapped else piece
            for batch in batches
            for piece in batch.chunk(parts)
        ]
        model = world.distributed(stage) if wrapped else stage
        scaler, ema = torch.amp.GradScaler("cpu", enabled=False), copy.deepcopy(stage.network)
        seen = [{"x": x, "y": x.sum(1)} for x in pieces]
        ends.append((train_one_epoch(model, ema, make_optimizer(stage, config), scaler, seen, config, 0, 4), stage))
    (whole, one), (summed, two) = ends
    for key in whole:
        assert abs(summed[key] - whole[key]) < 1e-5 * abs(whole[key]), key
    torch.testing.assert_close([*two.parameters()], [*one.parameters()], rtol=1e-4, atol=1e-6)


def check_training(config: str, whole: str, half: str) -> None:
    """A run and the rest of another; at the end of every epoch both processes must hold the same weights and averages, to the bit."""
    epoch, seen = Run.one_epoch, []

    def checked(run, *args):
        line = epoch(run, *args)
        values = [*run.stage.state_dict().values(), *run.ema.state_dict().values()]
        flat = torch.cat([v.flatten().double() for v in values])
        parts = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(parts, flat)
        assert torch.equal(*parts), "the processes have drifted apart"
        seen.append(line)
        return line

    Run.one_epoch = checked
    sys.argv = ["imkd-edge", "train", config, "--out", whole, "--seed", "5", "--json"]
    with contextlib.suppress(SystemExit):
        cli.main()
    assert len(seen) == 6
    result = train(config, out=half, seed=5, resume=True)
    assert len(seen) == 7 and bool(result) == (world.rank() == 0)


if __name__ == "__main__":
    world.join("cpu")
    assert world.size() == 2
    check_batch_norm()
    check_accumulation()
    check_training(*sys.argv[1:])
