"""Program of test_distributed.py for two processes: batch norm, micro-batches, a training, a resumed training."""

import contextlib
import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from test_distributed import LinearStage
from torch import nn

from imkd_edge import cli
from imkd_edge.options import TrainOptions
from imkd_edge.training import distributed
from imkd_edge.training.engine import make_optimizer, train_one_epoch
from imkd_edge.training.program import train
from imkd_edge.training.run import Run
from imkd_edge.training.sections import TrainConfig


def check_batch_norm() -> None:
    """Output, gradients and statistics equal those of torch's batch norm for a batch of 3, split as 2 and 1."""
    torch.manual_seed(0)
    x, slope = torch.randn(2, 3, 5, 4, 6)
    x = 100 + 3 * x  # far from 0: E[x^2] - E[x]^2 would lose its digits
    single, shared = nn.BatchNorm2d(5), nn.Sequential(nn.BatchNorm2d(5))
    for network in (single, shared):
        nn.init.uniform_(next(network.parameters()), 0.5, 2)
    shared.load_state_dict({f"0.{k}": v for k, v in single.state_dict().items()})
    distributed.sync_batch_norms(shared)

    indices = torch.tensor(distributed.share(range(3)))
    whole, part = x.clone().requires_grad_(), x[indices].requires_grad_()
    expected, y = single(whole), shared(part)
    (expected * slope).sum().backward()
    (y * slope[indices]).sum().backward()

    close = torch.testing.assert_close
    close(y, expected[indices], rtol=1e-4, atol=1e-4)
    close(part.grad, whole.grad[indices], rtol=1e-4, atol=1e-5)
    for (_, ours), (_, theirs) in zip(shared.named_parameters(), single.named_parameters()):
        close(2 * distributed.mean(ours.grad), theirs.grad, rtol=1e-4, atol=1e-4)
    close(shared[0].running_var, single.running_var, rtol=1e-5, atol=1e-5)
    close(shared[0].running_mean, single.running_mean, rtol=1e-5, atol=1e-5)


def check_accumulation() -> None:
    """Micro-batches of two processes, averaged only in the last one, take the steps of whole batches."""
    batches = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(1))
    results = []
    for parts, wrap in ((1, False), (2, True)):
        stage, config = LinearStage(), TrainConfig(batch=8, accumulate=parts, clip=0.5)
        micro = [x for batch in batches for x in batch.chunk(parts)]
        if wrap:
            micro = [x[distributed.share(range(len(x)))] for x in micro]
        model = distributed.wrap(stage) if wrap else stage
        scaler, ema = torch.amp.GradScaler("cpu", enabled=False), copy.deepcopy(stage.network)
        examples = [{"x": x, "y": x.sum(1)} for x in micro]
        means = train_one_epoch(model, ema, make_optimizer(stage, config), scaler, examples, config, 0, 4)
        results.append((means, stage))
    (whole, one), (accumulated, two) = results
    for key in whole:
        assert abs(accumulated[key] - whole[key]) < 1e-5 * abs(whole[key]), key
    torch.testing.assert_close([*two.parameters()], [*one.parameters()], rtol=1e-4, atol=1e-6)


def check_training(config: str, whole: str, half: str) -> None:
    """Trains a run and resumes another; after every epoch both processes hold the same weights, to the bit."""
    train_epoch, lines = Run.train_epoch, []

    def checked(run, *args):
        line = train_epoch(run, *args)
        values = [*run.stage.state_dict().values(), *run.ema.state_dict().values()]
        flat = torch.cat([v.flatten().double() for v in values])
        gathered = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(gathered, flat)
        assert torch.equal(*gathered), "the processes hold different weights"
        lines.append(line)
        return line

    Run.train_epoch = checked
    sys.argv = ["imkd-edge", "train", config, "--out", whole, "--seed", "5", "--json"]
    with contextlib.suppress(SystemExit):
        cli.main()
    assert len(lines) == 6
    result = train(config, TrainOptions(out=Path(half), seed=5, resume=True))
    assert len(lines) == 7 and bool(result) == (distributed.rank() == 0)


if __name__ == "__main__":
    distributed.join("cpu")
    assert distributed.size() == 2
    check_batch_norm()
    check_accumulation()
    check_training(*sys.argv[1:])
