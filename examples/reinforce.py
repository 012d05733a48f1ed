"""Learn to stay near the origin of a line by REINFORCE (Williams, 1992), with `ft.loop` and a pure environment."""

import argparse

import torch

import functrain as ft
from functrain import callbacks, nn, optim

policy = nn.serial(nn.dense(16), torch.tanh, nn.dense(2))  # logits of a step to the left and to the right
adam = optim.adam(1e-2)
EPISODES, LENGTH = 64, 20


def play(params: dict, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (log-probabilities of the actions taken, rewards), each (length, episodes); the environment is pure."""
    place = 4 * ft.random.normal(ft.random.fold_in(key, "start"), (EPISODES,))
    logs, rewards = [], []
    for time in range(LENGTH):
        logits, _ = policy.apply(params, {}, place[:, None])
        right = ft.random.uniform(ft.random.fold_in(key, time), (EPISODES,)) < logits.softmax(1)[:, 1]
        logs.append(logits.log_softmax(1).gather(1, right.long()[:, None])[:, 0])
        place = place + torch.where(right, 0.5, -0.5)
        rewards.append(-place.abs().detach())
    return torch.stack(logs), torch.stack(rewards)


def loss_of(params: dict, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss whose gradient is that of the expected reward, and the mean reward."""
    logs, rewards = play(params, key)
    to_go = rewards.flip(0).cumsum(0).flip(0)  # what an action can still change
    advantage = (to_go - to_go.mean(1, keepdim=True)) / (to_go.std() + 1e-6)
    return -(logs * advantage).mean(), rewards.mean()


def step(state: dict, batch: torch.Tensor) -> tuple[dict, dict]:
    """Return the policy after one update, and the mean reward."""
    key = ft.random.fold_in(state["key"], state["step"])
    (_, reward), grads = ft.value_and_grad(lambda params: loss_of(params, key), has_aux=True)(state["params"])
    params, opt = optim.step(adam, grads, state["opt"], state["params"])
    return {**state, "params": params, "opt": opt, "step": state["step"] + 1}, {"reward": reward}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--jit", default="aten")
    args = parser.parse_args()
    first, key = ft.random.split(ft.random.key(0), 2)
    params, _ = policy.init(first, torch.zeros(1, 1))
    state = {"params": params, "opt": adam.init(params), "key": key, "step": torch.tensor(0)}
    rounds = [torch.zeros(1)] * 20  # the environment needs no data: twenty updates are an epoch
    shown = [callbacks.progress()]
    run = ft.loop(step, state, key=key, train=rounds, epochs=args.epochs, callbacks=shown, jit=args.jit)
    print(run.history[-5:])
    print(f"mean reward {run.history[0]['train/reward']:.3f} at first, {run.history[-1]['train/reward']:.3f} at last")
