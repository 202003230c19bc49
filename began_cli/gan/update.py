"""One optimisation step of both networks, at the fewest passes the loss allows.

In units of one network pass over a batch (a backward pass costs 1 for data and 1 for weights):
6D + 3G where L_D's fake part is c L_G, else 7D + 3G; see `Update.joint_step`.
Nothing here reads a value back from the device.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from began_cli.gan.losses import BganDiscrete, Loss, Reconstruction
from began_cli.gan.networks import BlackAndWhite, Carry, carry_at


@dataclass(slots=True)
class Measures:
    """What one step tells, on the device: scalars by name, and the value of each image (N,)."""

    scalars: dict[str, Tensor]
    real: Tensor
    fake: Tensor


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
    ) -> None:
        self.generator, self.discriminator, self.loss = generator, discriminator, loss
        self.optimizer_g, self.optimizer_d = optimizer_g, optimizer_d
        self.ema = copy.deepcopy(generator).eval().requires_grad_(False)
        self.ema_decay = ema_decay
        self.amp = amp
        self.step = 0
        self.carry_steps = carry_steps
        self._carries = [
            module.carry
            for network in (generator, discriminator, self.ema)
            for module in network.modules()
            if isinstance(module, Carry) and module.carry is not None
        ]
        self._weights_d = list(discriminator.parameters())
        # Batch normalisation's running statistics are averaged like weights.
        self._weights_g = _floats(generator)
        self._weights_ema = _floats(self.ema)

    def __call__(self, batches: Callable[[], Tensor], latents: Callable[[], Tensor]) -> Measures:
        """One step of the generator and `loss.n_critic` of the discriminator.

        `batches()` gives real images (N, C, H, W) in [-1, 1] on the device, `latents()` (N, dim).
        """
        for carry in self._carries:
            carry.fill_(carry_at(self.step, self.carry_steps))
        for _ in range(self.loss.n_critic - 1):
            self.critic_step(batches(), latents())
        if isinstance(self.loss, BganDiscrete):
            measures = self.discrete_step(self.loss, batches(), latents())
        else:
            measures = self.joint_step(batches(), latents(), latents)
        self.step += 1
        return measures

    def joint_step(
        self, x: Tensor, z: Tensor, more_latents: Callable[[], Tensor] | None = None
    ) -> Measures:
        """One step of both networks from the same real images x and latents z."""
        loss = self.loss
        self.optimizer_d.zero_grad()
        self.optimizer_g.zero_grad()

        factor = loss.fake_factor()
        if loss.separate_latents:  # D's fakes are others than G's: 8D + 4G
            assert more_latents is not None
            with torch.no_grad():
                others = self._generate(more_latents())
            other_values, _ = self._criticise(others)
            loss_fake = loss.fake(other_values)
            loss_fake.backward(inputs=self._weights_d)
            g = self._generate(z)
            leaf = g.detach().requires_grad_()
            fake, output = self._criticise(leaf)
            loss_g = loss.generator(fake, output)
            (gradient,) = torch.autograd.grad(loss_g, leaf)
        else:
            g = self._generate(z)
            leaf = g.detach().requires_grad_()
            fake, output = self._criticise(leaf)
            loss_g = loss.generator(fake, output)
            loss_fake = loss.fake(fake)
            if factor is not None:
                # One pass gives the gradient of L_G for D's weights and for g. D's is then scaled:
                # grad L_D = grad L(x) + c grad L_G; with c = 0 nothing is lost for g.
                loss_g.backward()
                gradient = leaf.grad
                torch._foreach_mul_([w.grad for w in self._weights_d if w.grad is not None], factor)
            else:
                loss_fake.backward(inputs=self._weights_d, retain_graph=True)
                (gradient,) = torch.autograd.grad(loss_g, leaf)  # not for D's weights

        real, _ = self._criticise(x)
        loss_real = loss.real(real)
        loss_real.backward(inputs=self._weights_d)
        penalty = self._penalise(x, g)
        g.backward(gradient)
        loss_d = loss_real + loss_fake if penalty is None else loss_real + loss_fake + penalty
        return self._finish(loss_d, loss_g, loss_real, loss_fake, real, fake)

    def discrete_step(self, loss: BganDiscrete, x: Tensor, z: Tensor) -> Measures:
        """One step of both networks for black and white images: (3M + 3)D + 3G.

        The generator learns from the discriminator's values alone, not through it.
        """
        assert isinstance(self.generator, BlackAndWhite)
        self.optimizer_d.zero_grad()
        self.optimizer_g.zero_grad()
        with self._autocast(z):
            logits = self.generator.logits(z)
        logits = logits.to(z.dtype)
        drawn = loss.draw(logits)
        fake, _ = self._criticise(drawn.flatten(0, 1))
        loss_fake = loss.fake(fake)
        loss_fake.backward(inputs=self._weights_d)
        real, _ = self._criticise(torch.where(x > 0, 1.0, -1.0).to(x.dtype))
        loss_real = loss.real(real)
        loss_real.backward(inputs=self._weights_d)
        loss_g = loss.reinforce(logits, drawn, fake.unflatten(0, drawn.shape[:2]))
        loss_g.backward()
        return self._finish(loss_real + loss_fake, loss_g, loss_real, loss_fake, real, fake)

    def _finish(
        self,
        loss_d: Tensor,
        loss_g: Tensor,
        loss_real: Tensor,
        loss_fake: Tensor,
        real: Tensor,
        fake: Tensor,
    ) -> Measures:
        """Both optimizers' steps, the moving average and the loss's state; what to tell."""
        self.optimizer_d.step()
        self.loss.constrain(self.discriminator)
        self.optimizer_g.step()
        with torch.no_grad():
            self._average()
            real, fake = real.detach(), fake.detach()
            energies = self.loss.critic == "autoencoder"
            scalars = {
                "loss_d": loss_d.detach(),
                "loss_g": loss_g.detach(),
                "loss_real": real.mean() if energies else loss_real.detach(),
                "loss_fake": fake.mean() if energies else loss_fake.detach(),
                **self.loss.advance(real, fake),
            }
        return Measures(scalars, real, fake)

    def critic_step(self, x: Tensor, z: Tensor) -> None:
        """One step of the discriminator alone: 6D + 1G."""
        with torch.no_grad():
            g = self._generate(z)
        self.optimizer_d.zero_grad()
        self.loss.fake(self._criticise(g)[0]).backward(inputs=self._weights_d)
        self.loss.real(self._criticise(x)[0]).backward(inputs=self._weights_d)
        self._penalise(x, g)
        self.optimizer_d.step()
        self.loss.constrain(self.discriminator)

    def _penalise(self, x: Tensor, g: Tensor) -> Tensor | None:
        with self._autocast(x):
            penalty = self.loss.penalty(self.discriminator, x, g)
        if penalty is not None:
            penalty.backward(inputs=self._weights_d)
        return penalty

    def _autocast(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self.amp, enabled=self.amp is not None)

    def _generate(self, z: Tensor) -> Tensor:
        with self._autocast(z):
            g = self.generator(z)
        return g.to(z.dtype)

    def _criticise(self, images: Tensor) -> tuple[Tensor, Tensor | Reconstruction]:
        with self._autocast(images):
            output = self.discriminator(images)
        return self.loss.values(output, images), output

    def _average(self) -> None:
        # A short memory at first, so that early samples are not the initial weights.
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self._weights_ema, self._weights_g, 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """Everything of the step that a resumed run needs."""
        return {
            "step": self.step,
            "generator": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]
        for name in ("generator", "ema", "discriminator", "loss", "optimizer_g", "optimizer_d"):
            getattr(self, name).load_state_dict(state[name])


def _floats(module: nn.Module) -> list[Tensor]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [
        t.detach() for name, t in tensors if t.is_floating_point() and not name.endswith("carry")
    ]
