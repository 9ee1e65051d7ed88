"""Edits that change what is computed, each somewhere else."""

from tests.edits.copies import edit

TRAIN, OPTIM, MEMORY = "harness/train.py", "harness/optim.py", "harness/data/memory.py"
AUGMENTATION, TASK = "harness/data/augmentation.py", "harness/tasks/classification.py"
BUILD = "harness/build.py"

CHANGING = (
    # normalization, sums, kernels
    edit(
        "filter norm: epsilon",
        "paradigms/functional.py",
        "(deviation + 1e-10)",
        "(deviation + 1e-8)",
        cell="filter_norm",
    ),
    edit(
        "filter norm: biased variance",
        "paradigms/functional.py",
        "keepdim=True) / (count - 1)",
        "keepdim=True) / count",
        cell="filter_norm",
    ),
    edit(
        "layer norm: epsilon",
        BUILD,
        "        if replicate is not None:\n",
        "        for module in model.modules():\n"
        "            if isinstance(module, nn.LayerNorm):\n"
        "                module.eps *= 1.01\n"
        "        if replicate is not None:\n",
    ),
    edit(
        "order of the sum of the logits' terms",
        "paradigms/kernels/logits.py",
        "return sum(parts[1:], start=parts[0])",
        "return sum(parts[-2::-1], start=parts[-1])",
        cell="filter_norm",
    ),
    edit(
        "order of the sum of the tables' gradients",
        "paradigms/kernels/cpu.py",
        "WINDOWS_OF_AN_ITEM = 32",
        "WINDOWS_OF_AN_ITEM = 16",
    ),
    edit(
        "another kernel is preferred",
        "paradigms/kernels/__init__.py",
        '    Kernel("cpu", _attend_fused("cpu"), _WINDOW, _CENTRED, _SOFTMAX, runs_on=_has_library),\n',
        "",
    ),
    edit(
        "scale of the logits",
        "paradigms/parameterization/terms.py",
        'head_dim**-0.5 if "query_key"',
        'dim**-0.5 if "query_key"',
    ),
    edit(
        "mask of shifted windows",
        "paradigms/functional.py",
        "1 * (place >= padded - size) + (place >= padded - shift)",
        "1 * (place >= padded - size) + (place > padded - shift)",
    ),
    edit(
        "shift of the windows",
        "paradigms/requirements.py",
        "return (window[0] // 2, window[1]",
        "return (window[0] // 3, window[1]",
    ),
    edit(
        "order of the sum of a gradient: a square as a product",
        "paradigms/functional.py",
        "variance = centred.square().sum(",
        "variance = (centred * centred).sum(",
        cell="filter_norm",
    ),
    edit(
        "offset of a key to its query",
        "paradigms/kernels/sliding_window.py",
        'torch.einsum("byxhd,hkd->byxhk", k, rq.flip(1))',
        'torch.einsum("byxhd,hkd->byxhk", k, rq)',
        cell="sliding",
    ),
    edit(
        "gain of the ghost head",
        "paradigms/aggregation/ghost_head.py",
        "self._by_head(self.gain * self.add())",
        "self._by_head(1.0001 * self.gain * self.add())",
        cell="sliding",
    ),
    # initial weights
    edit("start of the tables", "paradigms/parameterization/terms.py", "TABLE_STD = 0.02\n", "TABLE_STD = 0.0201\n"),
    edit(
        "start of a static filter",
        "paradigms/aggregation/ghost_head.py",
        "trunc_normal_(weight, std=0.02)",
        "trunc_normal_(weight, std=0.0201)",
        cell="sliding",
    ),
    edit(
        "seed of the initial weights", BUILD, 'seed_for("init", f"{path}.{name}"', 'seed_for("start", f"{path}.{name}"'
    ),
    edit("seeds of all streams", "harness/seeding.py", '"big") >> 1', '"little") >> 1'),
    # schedule and optimizer
    edit(
        "learning rate of the end",
        OPTIM,
        "min_lr=training.min_lr * scale",
        "min_lr=training.min_lr * scale * (1 + 1e-9)",
    ),
    edit(
        "learning rate of the last epoch alone",
        TRAIN,
        "            trained = self._train_epoch(epoch)\n",
        "            if epoch == self.schedule.epochs:\n"
        "                for group in self.optimizer.param_groups:\n"
        '                    group["lr"] *= 1.001\n'
        "            trained = self._train_epoch(epoch)\n",
    ),
    edit(
        "length of warm-up",
        OPTIM,
        "round(training.warmup_epochs * steps_per_epoch)",
        "round(training.warmup_epochs * steps_per_epoch) + 1",
    ),
    edit("start of warm-up", OPTIM, "warmup_lr=training.warmup_lr * scale", "warmup_lr=training.warmup_lr"),
    edit("epochs of the cool-down", OPTIM, "epochs=training.total_epochs", "epochs=training.epochs"),
    edit("length of the cosine", OPTIM, "num_epochs=schedule.cosine_steps", "num_epochs=schedule.total_steps"),
    edit(
        "learning rate one step late",
        TRAIN,
        "place(self.step))\n        self.objective",
        "place(self.step - 1))\n        self.objective",
    ),
    edit(
        "learning rate by epochs",
        OPTIM,
        'if training.schedule_unit == "epoch" else 1',
        "if training.schedule_unit else 1",
    ),
    edit(
        "what is not decayed",
        OPTIM,
        "if training.position_decay else declared | tables,",
        "if training.position_decay else declared,",
    ),
    edit(
        "what the fallback trains",
        OPTIM,
        "fallback_list=declared | tables | unknown",
        "fallback_list=declared | unknown",
    ),
    edit(
        "amount of weight decay", OPTIM, "        training.weight_decay,\n", "        0.99 * training.weight_decay,\n"
    ),
    edit(
        "settings of the optimizer",
        OPTIM,
        '{"fused": True} if training.opt in FUSED else {}',
        '{"betas": (0.9, 0.99)}',
        cell="filter_norm",
    ),
    edit("norm that gradients are clipped to", TRAIN, "self.spec.clip_grad, norm", "1.001 * self.spec.clip_grad, norm"),
    edit("which norm decides on clipping", TRAIN, "is not None], foreach=True)", "is not None], 3.0, foreach=True)"),
    edit("gradients add up", TRAIN, "        self.optimizer.zero_grad()\n", ""),
    edit("decay of the moving average", TRAIN, "decay=training.ema_decay,", "decay=0.999 * training.ema_decay,"),
    edit("warm-up of the moving average", TRAIN, "EMA_SHARE = 9.0", "EMA_SHARE = 9.5"),
    edit(
        "no moving average is evaluated",
        TRAIN,
        "if self.objective.has_ema() else self.model",
        "if False else self.model",
    ),
    edit("drop path is off", TRAIN, "        self.model.train()\n", "        self.model.eval()\n"),
    edit("seed of drop path", TRAIN, 'seed_for("drop_path", self', 'seed_for("dropping", self'),
    # images and targets
    edit("label smoothing", TASK, '"smoothing": training.smoothing', '"smoothing": 0.9 * training.smoothing'),
    edit(
        "label smoothing of mixed images",
        AUGMENTATION,
        "label_smoothing=training.smoothing",
        "label_smoothing=0",
        cell="sliding",
    ),
    edit(
        "share of mixed images",
        AUGMENTATION,
        "augmentation.mixup, augmentation.cutmix,",
        "augmentation.mixup, 0,",
        cell="sliding",
    ),
    edit("share of flipped images", AUGMENTATION, "< self.hflip", "< self.hflip / 2"),
    edit(
        "what moves into shifted images",
        AUGMENTATION,
        "pad(images, (largest,) * 4)",
        "pad(images, (largest,) * 4, value=1)",
    ),
    edit("random erasing", AUGMENTATION, 'mode="pixel"', 'mode="const"'),
    edit("seed of the order", MEMORY, 'seed_for("order", self', 'seed_for("shuffle", self'),
    edit(
        "the order is that of the files",
        MEMORY,
        "order = torch.randperm(self.num_train, generator",
        "order = torch.arange(self.num_train) if True else torch.randperm(self.num_train, generator",
    ),
    edit(
        "an incomplete last batch", MEMORY, "self.num_train // self.batch_size", "-(-self.num_train // self.batch_size)"
    ),
    edit(
        "sample of the training images",
        "harness/data/split.py",
        "np.sort(np.concatenate(taken))",
        "np.concatenate(taken)",
    ),
    edit(
        "normalization of the training images",
        AUGMENTATION,
        "batch = normalize(images, mean=self.mean,",
        "batch = normalize(images, mean=self.mean + 1e-6,",
    ),
    edit(
        "normalization of the test images",
        MEMORY,
        "batch], mean=self.splits.mean,",
        "batch], mean=self.splits.mean + 1e-6,",
    ),
    edit(
        "crop of the test images",
        MEMORY,
        "normalize(images.images[batch], mean",
        "normalize(images.images[batch].roll(1, -1), mean",
    ),
    # scores
    edit("score of the model", TASK, "correct.any(-1).double()", "correct[:, :4].any(-1).double()"),
    edit("loss of the evaluation", TASK, '"loss": losses.double().mean()', '"loss": losses.mean()'),
)
