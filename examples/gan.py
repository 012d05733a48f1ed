"""Train a GAN on points of a ring, with two models, two optimizers, and `ft.loop` around a step of both."""

import argparse

import torch

import functrain as ft
from functrain import callbacks, data, losses, nn, optim

generator = nn.serial(nn.dense(64), nn.relu, nn.dense(64), nn.relu, nn.dense(2))
critic = nn.serial(nn.dense(64), nn.relu, nn.dense(64), nn.relu, nn.dense(1))
adam = optim.adam(1e-3, b1=0.5)


def ring(n: int, key: torch.Tensor) -> torch.Tensor:
    angle, blur = 6.2832 * ft.random.uniform(key, (n,)), ft.random.normal(ft.random.fold_in(key, "blur"), (n, 2))
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * blur


def begin(model: nn.Model, key: torch.Tensor, example: torch.Tensor) -> dict:
    params, _ = model.init(key, example)
    return {"params": params, "opt": adam.init(params)}


def judged(player: dict, points: torch.Tensor, real: bool) -> torch.Tensor:
    score, _ = critic.apply(player, {}, points)
    return losses.binary_cross_entropy(score, torch.full_like(score, float(real))).mean()


def improved(loss_of, player: dict) -> tuple[dict, torch.Tensor]:
    loss, grads = ft.value_and_grad(loss_of)(player["params"])
    params, opt = optim.step(adam, grads, player["opt"], player["params"])
    return {"params": params, "opt": opt}, loss


def step(state: dict, batch: data.Batch) -> tuple[dict, dict]:
    noise = ft.random.normal(ft.random.fold_in(state["key"], state["step"]), (len(batch.input), 4))
    fake, _ = generator.apply(state["generator"]["params"], {}, noise)
    judge, judge_loss = improved(lambda p: judged(p, batch.input, True) + judged(p, fake, False), state["critic"])
    fooled = lambda p: judged(judge["params"], generator.apply(p, {}, noise)[0], True)  # noqa: E731
    forger, forger_loss = improved(fooled, state["generator"])
    after = {"generator": forger, "critic": judge, "key": state["key"], "step": state["step"] + 1}
    return after, {"critic": judge_loss, "generator": forger_loss}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--jit", default="aten", help="the backend")
    args = parser.parse_args()
    keys = ft.random.split(ft.random.key(0), 4)
    points = ring(4096, keys[0])
    state = {"generator": begin(generator, keys[1], torch.zeros(1, 4)), "critic": begin(critic, keys[2], points[:1])}
    state |= {"key": keys[3], "step": torch.tensor(0)}
    train = data.loader(data.ArrayDataset((points, points)), data.shuffled(128))
    options = dict(train=train, epochs=args.epochs, callbacks=[callbacks.progress()], jit=args.jit)
    run = ft.loop(step, state, key=keys[0], **options)
    made, _ = generator.apply(run.state["generator"]["params"], {}, ft.random.normal(ft.random.key(9), (2048, 4)))
    print(f"mean distance from the origin {float(made.norm(dim=1).mean()):.3f}, on the ring 1.0")
