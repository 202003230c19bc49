"""One optimisation step of both networks, at the fewest passes the loss allows.

In units of one network pass over a batch (a backward pass costs 1 for data and 1 for weights):
6D + 3G where one backward pass over the fakes serves both networks, else 7D + 3G; see
`Update._learn_from_fakes`.
Nothing here reads a value back from the device.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from began_cli import ranks
from began_cli.block import pinned
from began_cli.gan.gradients import Gradients
from began_cli.gan.layers import Carry, carry_at
from began_cli.gan.losses import BganDiscrete, Loss
from began_cli.gan.measures import Criticism, Fakes, Measures, Reals, combine
from began_cli.gan.networks import BlackAndWhite, couples_images


class Update:
    """Both networks, their optimizers, the loss and the generator's moving average."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        optimizer_g: Optimizer,
        optimizer_d: Optimizer,
        ema_decay: float,
        amp: torch.dtype | None = None,
        carry_steps: int = 16_000,
        accumulate: int = 1,
    ) -> None:
        """`amp` is the autocast type, None for none; with float16 the gradients are scaled.

        `accumulate` is the number of equal parts in which a batch passes through the networks.
        """
        self.generator, self.discriminator, self.loss = generator, discriminator, loss
        self.optimizer_g, self.optimizer_d = optimizer_g, optimizer_d
        self.ema = copy.deepcopy(generator).eval().requires_grad_(False)
        self.ema_decay = ema_decay
        self.amp, self.carry_steps, self.accumulate = amp, carry_steps, accumulate
        self.step = 0
        like = next(generator.parameters())
        self.scaler = GradScaler(like.device.type, enabled=amp == torch.float16)
        # Weight of one part of this process in the mean over the batch.
        share = 1 / (accumulate * ranks.size())
        self._share = torch.tensor(share, dtype=like.dtype, device=like.device)
        self._generate: Callable[[Tensor], Tensor] = self._run_generator
        self._criticise: Callable[[Tensor], Criticism] = self._run_discriminator
        # In fp16 the smallest seeds would vanish.
        self._by_image = (
            loss.by_image and not couples_images(discriminator) and amp != torch.float16
        )
        self._controls: Tensor | None = None  # see `fix`
        self._last_controls: list[float] = []
        self._fixed_step: Callable[[], Measures] | None = None
        self._carries = [
            module.carry
            for network in (generator, discriminator, self.ema)
            for module in network.modules()
            if isinstance(module, Carry) and module.carry is not None
        ]
        self._gradients_g = Gradients(list(generator.parameters()))
        self._gradients_d = Gradients(list(discriminator.parameters()))
        self._weights_d = self._gradients_d.weights
        # Batch normalisation's running statistics are averaged like weights.
        self._weights_g = _floats(generator)
        self._weights_ema = _floats(self.ema)

    def __call__(self, batches: Callable[[], Tensor], latents: Callable[[], Tensor]) -> Measures:
        """Take one step of the generator and `loss.n_critic` of the discriminator.

        `batches()` returns real images (N, C, H, W) in [-1, 1] on the device, `latents()` (N, dim).
        """
        self._set_controls()
        measures = self._fixed_step() if self._fixed_step else self.take(batches, latents)
        self.step += 1
        return measures

    def take(self, batches: Callable[[], Tensor], latents: Callable[[], Tensor]) -> Measures:
        """Do the work of a step on the device. All that `began_cli.gan.graph` captures is here."""
        if self._controls is not None:
            for carry in self._carries:
                carry.copy_(self._controls[3])
        for _ in range(self.loss.n_critic - 1):
            self.critic_step(batches(), latents())
        if isinstance(self.loss, BganDiscrete):
            return self.discrete_step(self.loss, batches(), latents())
        return self.joint_step(batches(), latents(), latents)

    @property
    def draws(self) -> tuple[int, int]:
        """The numbers of batches and of latents that a step takes."""
        batches = self.loss.n_critic
        separate = self.loss.separate_latents and not isinstance(self.loss, BganDiscrete)
        return batches, batches + separate

    def fix(self, step: Callable[[], Measures] | None) -> None:
        """Take steps by calling `step`, which calls `take`, or replays it; None: as before.

        The numbers that the host computes for each step, both rates, the weight of the average and
        the carry, are then read from device memory.
        """
        self._fixed_step, self._last_controls = step, []
        if self.scaler.is_enabled():  # if a step broke off
            self.scaler._per_optimizer_states.clear()
        self._controls = None if step is None else self._share.new_zeros(4)

    def _set_controls(self) -> None:
        """Set the numbers of the next step that the host computes."""
        carry = carry_at(self.step, self.carry_steps)
        if self._controls is None:
            for each in self._carries:
                each.fill_(carry)
            return
        rates = [o.param_groups[0]["lr"] for o in (self.optimizer_g, self.optimizer_d)]
        controls = [*rates, 1 - self._decay(), carry]
        if controls != self._last_controls:
            new = pinned(torch.tensor(controls), self._controls.device)
            self._controls.copy_(new, non_blocking=True)
            self._last_controls = controls

    def compile(self, mode: str, x: Tensor, z: Tensor, graphs: bool = True) -> None:
        """Compile both networks for batches like x and z; change nothing else.

        `mode` is `default`, or `max`: autotuned, and with CUDA graphs of each pass if `graphs`. The
        gradient penalty is not compiled, because compiled code cannot be differentiated twice.
        Raise whatever the compiler raises; the step is then as before.
        """
        import torch._functorch.config as functorch

        before = (self._generate, self._criticise)
        functorch.donated_buffer = False  # two backward passes go through one forward
        torch.compiler.reset()  # the networks of earlier runs in this process count to its limit
        chosen = "default"
        if mode == "max":
            chosen = "max-autotune" if graphs else "max-autotune-no-cudagraphs"
        self._generate = torch.compile(self._run_generator, mode=chosen, dynamic=False)
        self._criticise = torch.compile(self._run_discriminator, mode=chosen, dynamic=False)
        self._keep_gradients(chosen == "max-autotune")
        kept = [(tensor, tensor.clone()) for tensor in _floats(self.generator)]
        kept += [(tensor, tensor.clone()) for tensor in _floats(self.discriminator)]
        try:
            with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
                self._begin()
                part, others = x.chunk(self.accumulate)[0], z.chunk(self.accumulate)[0]
                if isinstance(self.loss, BganDiscrete):
                    self._learn_from_drawn(self.loss, others)
                else:
                    with torch.no_grad():
                        self._generate(others)
                    separate = others if self.loss.separate_latents else None
                    self._learn_from_fakes(others, separate)
                self._learn_from_reals(part, part)
        except Exception:
            self._generate, self._criticise = before
            self._keep_gradients(False)
            raise
        finally:  # batch normalisation has seen a batch
            for tensor, value in kept:
                tensor.copy_(value)
            self._gradients_d.clear()
            self._gradients_g.clear()

    def _keep_gradients(self, keep: bool) -> None:
        self._gradients_d.keep_in_place(keep)
        self._gradients_g.keep_in_place(keep)

    def joint_step(
        self, x: Tensor, z: Tensor, more_latents: Callable[[], Tensor] | None = None
    ) -> Measures:
        """Take one step of both networks from the same real images x and latents z."""
        self._begin()
        others = [None] * self.accumulate
        if self.loss.separate_latents:  # D's fakes are others than G's: 8D + 4G
            assert more_latents is not None
            others = more_latents().chunk(self.accumulate)
        fakes = [
            self._learn_from_fakes(*part)
            for part in zip(z.chunk(self.accumulate), others, strict=True)
        ]
        factor = self.loss.fake_factor()
        if factor is not None and not self.loss.separate_latents:
            # D's gradient so far is that of L_G; its loss has c L_G.
            self._gradients_d.scale(factor)
        reals = [
            self._learn_from_reals(part, fakes[i].images)
            for i, part in enumerate(x.chunk(self.accumulate))
        ]
        return self._finish(fakes, reals)

    def _learn_from_fakes(self, z: Tensor, others: Tensor | None) -> Fakes:
        """Add the gradients of L_G to G's and those of the fake part of L_D to D's.

        Both share one forward pass. Where the fake part is c L_G one backward pass gives the
        gradient of L_G for D's weights and for g. D's is scaled later: with c = 0 g keeps its own.
        Where each image counts by its value alone, one pass serves too: `_backward_by_image`.
        """
        loss, seed = self.loss, self._seed()
        loss_fake = None
        if others is not None:
            with torch.no_grad():
                g = self._generate(others)
            loss_fake = loss.fake(self._criticise(g).values)
            loss_fake.backward(seed, inputs=self._weights_d)
        g = self._generate(z)
        leaf = g.detach().requires_grad_()
        values, output = self._criticise(leaf)
        loss_g = loss.generator(values, output)
        if loss_fake is not None:
            (gradient,) = torch.autograd.grad(loss_g, leaf, seed)
        elif loss.fake_factor() is not None:
            loss_fake = loss.fake(values)
            loss_g.backward(seed)
            gradient = leaf.grad
        elif self._by_image:
            loss_fake = loss.fake(values)
            gradient = self._backward_by_image(values, loss_fake, loss_g, leaf, seed)
        else:
            loss_fake = loss.fake(values)
            loss_fake.backward(seed, inputs=self._weights_d, retain_graph=True)
            (gradient,) = torch.autograd.grad(loss_g, leaf, seed)  # not for D's weights
        g.backward(gradient)
        return Fakes(leaf.detach(), values.detach(), loss_fake.detach(), loss_g.detach())

    def _backward_by_image(
        self, values: Tensor, loss_fake: Tensor, loss_g: Tensor, g: Tensor, seed: Tensor
    ) -> Tensor:
        """Add the gradients of the fake part of L_D to D's, and return that of L_G for the images
        g, (N, C, H, W), from both losses and D's values (N,) for the images.

        A backward pass is linear in the seed of each image. With dL_D/dv as seeds, D's weights get
        their gradient, and each image gets its own times (dL_D/dv) / (dL_G/dv), which is undone
        afterwards. Where dL_D/dv is 0, as for an idle hinge, the seed is the largest that rounding
        hides in the sum over the batch.
        """
        (seeds,) = torch.autograd.grad(loss_fake, values, seed)
        (wanted,) = torch.autograd.grad(loss_g, values, seed)
        least = seed * (torch.finfo(values.dtype).eps / 2 / len(values))
        seeds = torch.where(seeds.abs() < least, least, seeds)
        values.backward(seeds)
        assert g.grad is not None
        rows = (wanted / seeds).repeat_interleave(len(g) // len(values))  # one value for each pack
        return g.grad * rows.view(-1, 1, 1, 1)

    def _learn_from_reals(self, x: Tensor, g: Tensor) -> Reals:
        """Add the gradients of the real part of L_D, and of its penalty, to D's: 3D."""
        seed = self._seed()
        with self._autocast(x):
            penalty = self.loss.penalty(self.discriminator, x, g)
        if penalty is not None:
            penalty.backward(seed, inputs=self._weights_d)
            penalty = penalty.detach()
        values = self._criticise(x).values
        loss_real = self.loss.real(values)
        loss_real.backward(seed, inputs=self._weights_d)
        return Reals(values.detach(), loss_real.detach(), penalty)

    def critic_step(self, x: Tensor, z: Tensor) -> None:
        """Take one step of the discriminator alone: 6D + 1G."""
        self._begin()
        parts = zip(x.chunk(self.accumulate), z.chunk(self.accumulate), strict=True)
        for x_part, z_part in parts:
            with torch.no_grad():
                g = self._generate(z_part)
            loss_fake = self.loss.fake(self._criticise(g).values)
            loss_fake.backward(self._seed(), inputs=self._weights_d)
            self._learn_from_reals(x_part, g)
        self._step_discriminator()
        self.scaler.update()

    def discrete_step(self, loss: BganDiscrete, x: Tensor, z: Tensor) -> Measures:
        """Take one step of both networks for black and white images: (3M + 3)D + 3G.

        The generator learns from the discriminator's values, not from its gradients.
        """
        self._begin()
        fakes, reals = [], []
        parts = zip(x.chunk(self.accumulate), z.chunk(self.accumulate), strict=True)
        for x_part, z_part in parts:
            fakes.append(self._learn_from_drawn(loss, z_part))
            black_and_white = torch.where(x_part > 0, 1.0, -1.0).to(x.dtype)
            reals.append(self._learn_from_reals(black_and_white, fakes[-1].images))
        return self._finish(fakes, reals)

    def _learn_from_drawn(self, loss: BganDiscrete, z: Tensor) -> Fakes:
        assert isinstance(self.generator, BlackAndWhite)
        with self._autocast(z):
            logits = self.generator.logits(z)
        logits = logits.to(z.dtype)
        drawn = loss.draw(logits)
        values = self._criticise(drawn.flatten(0, 1)).values
        loss_fake = loss.fake(values)
        loss_fake.backward(self._seed(), inputs=self._weights_d)
        loss_g = loss.reinforce(logits, drawn, values.unflatten(0, drawn.shape[:2]))
        loss_g.backward(self._seed())
        return Fakes(drawn, values.detach(), loss_fake.detach(), loss_g.detach())

    def _begin(self) -> None:
        if self._gradients_d.keep:
            torch.compiler.cudagraph_mark_step_begin()
        self._gradients_d.clear()
        self._gradients_g.clear()

    def _seed(self) -> Tensor:
        """Return the gradient that a backward pass over one part starts from."""
        return self.scaler.scale(self._share)

    def _step_discriminator(self) -> None:
        self._gradients_d.sum_over_processes()
        self._step_optimizer(self.optimizer_d, 1)
        self.loss.constrain(self.discriminator)

    def _step_optimizer(self, optimizer: Optimizer, control: int) -> None:
        """Step an optimizer, at the rate of its group or, if there are controls, of that one."""
        if self._controls is None:
            self.scaler.step(optimizer)
            return
        (group,) = optimizer.param_groups
        rate = group["lr"]
        group["lr"] = self._controls[control]
        try:
            self.scaler.step(optimizer)
        finally:
            group["lr"] = rate

    def _finish(self, fakes: list[Fakes], reals: list[Reals]) -> Measures:
        """Step both optimizers, update the average and the loss's state; return the measures."""
        self._step_discriminator()
        self._gradients_g.sum_over_processes()
        self._step_optimizer(self.optimizer_g, 0)
        self.scaler.update()
        with torch.no_grad():
            self._average()
            real, fake, means = combine(fakes, reals)
            loss_real, loss_fake, loss_g, penalty = means.unbind()
            energies = self.loss.critic == "autoencoder"
            scalars = {
                "loss_d": loss_real + loss_fake + penalty,
                "loss_g": loss_g,
                "loss_real": real.mean() if energies else loss_real,
                "loss_fake": fake.mean() if energies else loss_fake,
                **self.loss.advance(real, fake),
            }
        return Measures(scalars, real, fake)

    def _autocast(self, like: Tensor) -> AbstractContextManager[Any]:
        return torch.autocast(like.device.type, self.amp) if self.amp else nullcontext()

    def _run_generator(self, z: Tensor) -> Tensor:
        with self._autocast(z):
            g = self.generator(z)
        return g.to(z.dtype)

    def _run_discriminator(self, images: Tensor) -> Criticism:
        with self._autocast(images):
            output = self.discriminator(images)
        return Criticism(self.loss.values(output, images), output)

    def _average(self) -> None:
        if self._controls is None:
            torch._foreach_lerp_(self._weights_ema, self._weights_g, 1 - self._decay())
        else:
            weights = [self._controls[2]] * len(self._weights_g)
            torch._foreach_lerp_(self._weights_ema, self._weights_g, weights)

    def _decay(self) -> float:
        """Return the decay of the average at this step.

        A short memory at first, so that early samples are not the initial weights.
        """
        return min(self.ema_decay, (1 + self.step) / (10 + self.step))

    def state_dict(self) -> dict[str, object]:
        """Return everything of the step that a resumed run needs."""
        return {
            "step": self.step,
            "generator": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for name in ("generator", "ema", "discriminator", "loss"):
            getattr(self, name).load_state_dict(state[name])
        _load_optimizer(self.optimizer_g, state["optimizer_g"])
        _load_optimizer(self.optimizer_d, state["optimizer_d"])
        self.scaler.load_state_dict(state["scaler"])


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's state, also one of another kind of device and another precision.

    It is laid out in memory as the weights are, which a fused optimizer needs. State that exists
    stays where it is, as a CUDA graph needs it.
    """
    kinds = ("fused", "foreach", "capturable")
    own = {name: value for name, value in optimizer.param_groups[0].items() if name in kinds}
    before = {weight: dict(slots) for weight, slots in optimizer.state.items()}
    groups = [group | own for group in saved["param_groups"]]
    optimizer.load_state_dict(saved | {"param_groups": groups})
    for weight, slots in optimizer.state.items():
        for name, value in slots.items():
            place = before.get(weight, {}).get(name)
            if place is None and value.stride() != weight.stride() and value.ndim:
                place = torch.empty_like(weight)
            if place is not None:
                slots[name] = place.copy_(value)


def _floats(module: nn.Module) -> list[Tensor]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [
        t.detach() for name, t in tensors if t.is_floating_point() and not name.endswith("carry")
    ]
