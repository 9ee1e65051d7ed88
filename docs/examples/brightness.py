"""A task without classes: predict the mean brightness of an image; the lower the error, the better."""

import torch
from timm.task import TrainingTask
from torch.nn.functional import mse_loss

from harness.measure import Measure
from harness.tasks import Evaluation, Task

ERROR = Measure("error", "error", direction="lower", ceiling=0.0, relevant_gain=0.005, format=".4f", short_format=".3f")


class Regression(TrainingTask):
    """The squared error of one output."""

    def __init__(self, model, device):
        super().__init__(device=device, verbose=False)
        self.trainable_module = model

    def forward(self, images, targets):
        return {"loss": mse_loss(self.trainable_module(images)[:, 0], images.mean(dim=(1, 2, 3)))}


class Brightness(Task):
    """The mean of all pixels of a normalized image."""

    measures = (ERROR,)

    def count_outputs(self, data):
        return 1

    def build_objective(self, model, training, device):
        return Regression(model, device)

    def evaluate(self, model, batches, ranks):
        model.eval()
        measured = []
        with torch.inference_mode():
            for images, _ in batches:
                measured.append((model(images)[:, 0].float(), images.mean(dim=(1, 2, 3))))
        predictions, brightness = (
            torch.cat(parts).cpu() for parts in zip(*ranks.gather_batches(measured), strict=True)
        )
        return Evaluation(
            scores={"error": (predictions - brightness).abs().mean().item()},
            per_image={"predictions": predictions.numpy(), "brightness": brightness.numpy()},
        )

    def score_images(self, per_image):
        return {"error": abs(per_image["predictions"] - per_image["brightness"]).astype("float64")}


TASKS = {"brightness": Brightness()}
