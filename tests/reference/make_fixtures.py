"""Writes tests/fixtures/parity: what PyTorch, transformers and PEFT make of small random GPT-2s.

Run it, from the repository's root, with the versions that the fixtures' README names:

    python3 -m venv reference
    reference/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    reference/bin/python tests/reference/make_fixtures.py

Weights are float32 (or what the case's model/ stores), all arithmetic on them is float64, results are
rounded to float32: what differs from them is the other side's error alone. Heads are 16, 20, 64 and 80
wide; every weight, bias and adapter matrix is random, so that no term hides behind a zero or a one.

Layout, one folder per case:

    model/                  a Hugging Face GPT-2 directory, with a vocabulary of the bytes and little more
    lora/NAME/              an adapter as PEFT's save_pretrained writes it
    case.json
      sequences             token ids; each is run alone, never padded
      batch                 [{tokens, targets}]: the loss is the mean, over all targets of all sequences,
                            of -log p(tokens[i] | tokens[..i]) for the i in targets (i >= 1)
      generation            [{lora: NAME or null, prompt, tokens}]: greedy continuations
      full                  {loss} of the bare model on batch; null where gradients of all are not stored
      loras.NAME            {rank, alpha, targets, rsLora, loss}: its options, its loss on batch
      training              [{lora: NAME or null for all weights, steps, learningRate, warmupSteps, betas,
                            epsilon, weightDecay, maxGradNorm, batches, learningRates, losses, gradNorms}]:
                            AdamW from the stored start, one batch a step, every token but a sequence's
                            first a target, the second five steps' batches those of the first five (so that
                            it is two epochs without shuffling); learningRates are those of the
                            steps (linear, as transformers' get_linear_schedule_with_warmup has it: the
                            first step's is 0), losses are before the step, gradNorms before clipping
      float32Difference     {logits, losses, trained}: by how much torch's own float32 results differ at most
    expected.safetensors    (float32)
      logits.I              (length, V) of sequence I
      gradient.PARAMETER    of the loss on batch, by transformers' name (transformer.h.0.attn.c_attn.weight)
      NAME.logits.I         with adapter NAME; merged into the weights they are the same (asserted here)
      NAME.gradient.KEY     of lora_A and lora_B, by their name in adapter_model.safetensors
      NAME.trained.KEY      the adapter after training

and operations.json: single operations in float64, {NAME: {inputs, outputs}}, tensors as {shape, data}; d.INPUT
is an input's gradient for the given dOut.
"""

import json
import pathlib
import shutil

import torch
import transformers
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, get_linear_schedule_with_warmup

PARITY = pathlib.Path(__file__).parents[1] / "fixtures" / "parity"

CASES = {
    # As openai-community/gpt2 looks: names without a prefix, the causal masks among the tensors.
    "d16": dict(
        config=dict(n_layer=2, n_head=2, n_embd=32, vocab_size=263, n_positions=40),
        store="openai",
        lengths=[1, 5, 12, 17],
        loras={
            "attn": dict(r=4, lora_alpha=8, target_modules=["c_attn"]),
            "all-rs": dict(r=3, lora_alpha=2, target_modules=["c_attn", "c_proj", "c_fc"], use_rslora=True),
        },
        full=True,
        train=["attn", "all-rs", None],
        generate=[None, "attn"],
    ),
    "d20": dict(
        config=dict(
            n_layer=3, n_head=2, n_embd=40, vocab_size=257, n_positions=40, n_inner=24,
            layer_norm_epsilon=1e-6, scale_attn_by_inverse_layer_idx=True,
        ),
        store="sharded",
        lengths=[24, 1, 3],
        loras={"some": dict(r=5, lora_alpha=3, target_modules=["attn.c_proj", "mlp.c_fc"])},
        full=True,
        train=["some"],
        generate=[None],
    ),
    "d64": dict(
        config=dict(n_layer=2, n_head=1, n_embd=64, vocab_size=259, n_positions=40, n_inner=16),
        store="f16",
        lengths=[9, 17],
        loras={"one": dict(r=1, lora_alpha=3, target_modules=["c_attn"])},
        full=False,
        train=["one"],
        generate=[None],
    ),
    "d80": dict(
        config=dict(n_layer=2, n_head=1, n_embd=80, vocab_size=261, n_positions=40, n_inner=16),
        store="bf16",
        lengths=[2, 15],
        loras={"all": dict(r=2, lora_alpha=1, target_modules=["c_attn", "c_proj", "c_fc"])},
        full=False,
        train=["all"],
        generate=["all"],
    ),
}


def randomise(model, generator):
    """Gives every parameter values that matter: logits and attention scores of a few units."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        if "lora_" in name:
            parameter.data = noise * 0.2
        elif ".ln_" in name and name.endswith("weight"):
            parameter.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            parameter.data = 0.1 * noise
        else:
            parameter.data = noise * (1.2 / model.config.n_embd**0.5)


def write_model(model, directory, store):
    """Stores the weights in one of the forms that are found in the wild."""
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}.get(store, torch.float32)
    model = model.to(dtype)
    model.save_pretrained(directory, max_shard_size="60KB" if store == "sharded" else "1GB")
    (directory / "generation_config.json").unlink(missing_ok=True)
    file = directory / "model.safetensors"
    if store == "sharded":
        assert (directory / "model.safetensors.index.json").exists() and not file.exists()
    if store == "openai":
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
        P = model.config.n_positions
        for layer in range(model.config.n_layer):
            tensors[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(P, P)).view(1, 1, P, P)
        save_file(tensors, file, metadata={"format": "pt"})
        # The published config.json of 2019 says no more than this.
        known = json.loads((directory / "config.json").read_text())
        fields = """activation_function architectures attn_pdrop bos_token_id embd_pdrop eos_token_id
            initializer_range layer_norm_epsilon model_type n_embd n_head n_layer n_positions resid_pdrop
            summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
            vocab_size""".split()
        published = {field: known[field] for field in fields} | {"n_ctx": P}
        (directory / "config.json").write_text(json.dumps(published, indent=2) + "\n")
    if store == "f16":  # some tools write the tied head a second time
        tensors = load_file(file)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        save_file(tensors, file, metadata={"format": "pt"})


def write_tokenizer(directory, V):
    """A vocabulary as small as byte-level BPE can be: 256 bytes, a few merges, <|endoftext|>."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(rest))]
    merges = ["\u0120 t", "h e", "\u0120t he", "i n", "\u0120 a", "r e"][: V - 257]
    tokens = letters + [merge.replace(" ", "") for merge in merges] + ["<|endoftext|>"]
    vocab = json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False)
    (directory / "vocab.json").write_text(vocab + "\n")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def load(directory, dtype=torch.float64):
    """The stored model; eval() keeps dropout out, gradients work all the same."""
    return GPT2LMHeadModel.from_pretrained(directory, dtype=dtype, attn_implementation="eager").eval()


def logits_of(model, tokens):
    return model(torch.tensor([tokens])).logits[0]


def loss_on(model, batch):
    total, count = 0.0, 0
    for sequence in batch:
        targets = torch.tensor(sequence["targets"])
        logits = logits_of(model, sequence["tokens"])[targets - 1]
        total = total + F.cross_entropy(logits, torch.tensor(sequence["tokens"])[targets], reduction="sum")
        count += len(targets)
    return total / count


def adapted(directory, options, start=None, dtype=torch.float64):
    """The stored model with an adapter; random by PEFT's own initialisation, or from `start`."""
    config = LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, lora_dropout=0.0, **options)
    model = get_peft_model(load(directory, dtype), config).to(dtype).eval()
    model.base_model.model.config.name_or_path = "model"
    if start is not None:
        for key, parameter in adapter_of(model).items():
            parameter.data = start[key].to(dtype)
    return model


def adapter_of(model):
    """An adapter's parameters by their names in its file."""
    return {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }


def random_batch(rng, V, lengths, share):
    batch = []
    for length in lengths:
        tokens = torch.randint(V, (length,), generator=rng).tolist()
        targets = [i for i in range(1, length) if torch.rand(1, generator=rng) < share] or [length - 1]
        batch.append({"tokens": tokens, "targets": targets})
    return batch


def run_training(model, parameters, batches, weight_decay):
    options = dict(learningRate=0.005, warmupSteps=3, betas=[0.9, 0.99], epsilon=1e-8,
                   weightDecay=weight_decay, maxGradNorm=1.0)
    optimizer = torch.optim.AdamW(parameters, lr=options["learningRate"], betas=options["betas"],
                                  eps=options["epsilon"], weight_decay=weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, options["warmupSteps"], len(batches))
    learning_rates, losses, norms = [], [], []
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_on(model, batch)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, options["maxGradNorm"]).item())
        learning_rates.append(optimizer.param_groups[0]["lr"])
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    return dict(steps=len(batches), **options, batches=batches,
                learningRates=learning_rates, losses=losses, gradNorms=norms)


def greedy(model, prompt, n_positions):
    """transformers' own greedy decoding; None where it ends early or where rounding could turn it."""
    longest = min(32, n_positions - len(prompt))
    tokens = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=longest,
                            pad_token_id=0)[0].tolist()
    best = logits_of(model, tokens).topk(2).values
    margin = (best[:, 0] - best[:, 1])[len(prompt) - 1:-1].min().item()
    return tokens[len(prompt):] if len(tokens) == len(prompt) + longest and margin > 2e-3 else None


def make_case(name, config, store, lengths, loras, full, train, generate):
    folder = PARITY / name
    rng = torch.Generator().manual_seed(sum(map(ord, name)))
    V = config["vocab_size"]
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=V - 1, eos_token_id=V - 1, **config))
    randomise(model, rng)
    write_model(model, folder / "model", store)
    write_tokenizer(folder / "model", V)

    model = load(folder / "model")
    expected = {}
    sequences = [torch.randint(V, (length,), generator=rng).tolist() for length in lengths]
    batch = random_batch(rng, V, [7, 2, 16], 0.6)
    case = dict(sequences=sequences, batch=batch, generation=[], full=None, loras={}, training=[])

    single = load(folder / "model", torch.float32)
    difference = dict(logits=0.0, losses=0.0, trained=0.0)

    def differ(what, exact, rounded):
        difference[what] = max(difference[what], (exact - rounded).abs().max().item())

    for i, tokens in enumerate(sequences):
        logits = logits_of(model, tokens)
        expected[f"logits.{i}"] = logits
        differ("logits", logits, logits_of(single, tokens))

    if full:
        loss = loss_on(model, batch)
        loss.backward()
        case["full"] = {"loss": loss.item()}
        for key, parameter in model.named_parameters():
            expected[f"gradient.{key}"] = parameter.grad

    for lora, options in loras.items():
        model = adapted(folder / "model", options)
        start = {key: torch.randn(p.shape, generator=rng) * 0.2 for key, p in adapter_of(model).items()}
        model = adapted(folder / "model", options, start)
        base = load(folder / "model")
        single = adapted(folder / "model", options, start, torch.float32)
        write_adapter(model, folder / "lora" / lora)
        for i, tokens in enumerate(sequences):
            expected[f"{lora}.logits.{i}"] = logits_of(model, tokens)
            differ("logits", expected[f"{lora}.logits.{i}"], logits_of(single, tokens))
            assert (expected[f"{lora}.logits.{i}"] - logits_of(base, tokens)).abs().max() > 0.1
        loss = loss_on(model, batch)
        loss.backward()
        for key, parameter in adapter_of(model).items():
            expected[f"{lora}.gradient.{key}"] = parameter.grad
        case["loras"][lora] = dict(
            rank=options["r"], alpha=options["lora_alpha"], targets=options["target_modules"],
            rsLora=options.get("use_rslora", False), loss=loss.item(),
        )
        merged = adapted(folder / "model", options, start).merge_and_unload()
        for i, tokens in enumerate(sequences):
            assert (logits_of(merged, tokens) - expected[f"{lora}.logits.{i}"]).abs().max() < 1e-9

    def fresh(lora, dtype=torch.float64):
        """The model again as it is stored, with its adapter as it is stored."""
        if lora is None:
            return load(folder / "model", dtype)
        start = load_file(folder / "lora" / lora / "adapter_model.safetensors")
        return adapted(folder / "model", loras[lora], start, dtype)

    def trained(lora, batches, dtype=torch.float64):
        model = fresh(lora, dtype)
        parameters = dict(model.named_parameters()) if lora is None else adapter_of(model)
        # Which weights of a whole model decay is a matter of taste; those of an adapter all do.
        return run_training(model, list(parameters.values()), batches, 0.0 if lora is None else 0.1), parameters

    for lora in generate:
        for length in [1, 6]:
            model, tokens = fresh(lora), None
            while tokens is None:
                prompt = torch.randint(V - 1, (length,), generator=rng).tolist()
                tokens = greedy(model, prompt, config["n_positions"])
            case["generation"].append(dict(lora=lora, prompt=prompt, tokens=tokens))

    for lora in train:
        batches = [random_batch(rng, V, [9, 4], share=2) for _ in range(5)] * 2
        run, parameters = trained(lora, batches)
        single_run, single_parameters = trained(lora, batches, torch.float32)
        differ("losses", torch.tensor(run["losses"]), torch.tensor(single_run["losses"]))
        # A whole model's are not kept: a key's bias has no gradient but rounding's, and AdamW makes much of it.
        for key, parameter in parameters.items() if lora is not None else []:
            differ("trained", parameter, single_parameters[key])
            expected[f"{lora}.trained.{key}"] = parameter
        case["training"].append(dict(lora=lora, **run))
    case["float32Difference"] = difference

    rounded = {key: value.detach().float().contiguous().clone() for key, value in expected.items()}
    save_file(rounded, folder / "expected.safetensors")
    (folder / "case.json").write_text(dumps(case) + "\n")
    for run in case["training"]:
        print(name, run["lora"], "losses", [round(x, 3) for x in run["losses"]],
              "norms", [round(x, 3) for x in run["gradNorms"]])
    print(name, "float32 difference", difference)


def write_adapter(model, directory):
    """As PEFT writes it, in float32, without the things that name this machine or this minute."""
    reference = model.float()
    reference.save_pretrained(directory)
    model.double()
    (directory / "README.md").unlink(missing_ok=True)
    config = json.loads((directory / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "model"
    config["target_modules"] = sorted(config["target_modules"])
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    assert set(load_file(directory / "adapter_model.safetensors")) == set(get_peft_model_state_dict(model))


def dumps(value, indent=""):
    """JSON with lists of numbers on one line."""
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {dumps(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}" if items else "{}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(f"{inner}{dumps(item, inner)}" for item in value) + f"\n{indent}]"
    return json.dumps(value)


def operations():
    """What PyTorch's own operations and its autograd say of the kernels' mathematics, in float64."""
    rng = torch.Generator().manual_seed(7)
    T, C, H, V = 7, 12, 3, 11

    def random(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    result = {}

    def record(name, inputs, outputs, differentiate=None):
        """With `differentiate` = (output, input names), dOut is random and d.INPUT its gradients."""
        if differentiate:
            output, names = differentiate
            inputs["dOut"] = random(*output.shape).detach()
            gradients = torch.autograd.grad(output, [inputs[n] for n in names], inputs["dOut"])
            outputs |= {f"d.{n}": g for n, g in zip(names, gradients)}

        def plain(x):
            if not isinstance(x, torch.Tensor):
                return x
            return {"shape": list(x.shape), "data": x.detach().flatten().tolist()}

        result[name] = {side: {k: plain(v) for k, v in values.items()}
                        for side, values in dict(inputs=inputs, outputs=outputs).items()}

    x, weight, bias = random(T, C), random(C), random(C)
    out = F.layer_norm(x, [C], weight, bias, 1e-5)
    record("layerNorm", dict(x=x, weight=weight, bias=bias, epsilon=1e-5), dict(out=out),
           (out, ["x", "weight", "bias"]))

    x = (3 * random(40)).detach().requires_grad_()
    out = F.gelu(x, approximate="tanh")
    record("gelu", dict(x=x), dict(out=out), (out, ["x"]))

    a, b, bias, residual = random(T, C), random(C, V), random(V), random(T, V)
    out = F.gelu(0.3 * a @ b + bias, approximate="tanh") + residual
    record("matmul", dict(a=a, b=b, bias=bias, residual=residual, alpha=0.3), dict(out=out))

    wte, wpe = random(V, C), random(T, C)
    tokens, positions = torch.tensor([3, 10, 3, 0, 3, 1, 10]), torch.tensor([0, 1, 2, 0, 1, 2, 3])
    out = F.embedding(tokens, wte) + F.embedding(positions, wpe)
    record("embedding", dict(wte=wte, wpe=wpe, tokens=tokens, positions=positions), dict(out=out),
           (out, ["wte", "wpe"]))

    qkv, starts, ends = random(T, 3 * C), torch.tensor([0, 0, 0, 3, 4, 4, 4]), torch.tensor([3, 3, 3, 4, 7, 7, 7])
    rows = torch.arange(T)
    seen = (rows[None] <= rows[:, None]) & (rows[None] >= starts[:, None])
    q, k, v = (x.view(T, H, C // H).transpose(0, 1) for x in qkv.split(C, dim=1))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.4).transpose(0, 1).reshape(T, C)
    lse = (0.4 * q @ k.transpose(1, 2)).masked_fill(~seen, -torch.inf).logsumexp(2).T
    record("attention", dict(qkv=qkv, starts=starts, ends=ends, heads=H, scale=0.4),
           dict(out=out, logSumExp=lse), (out, ["qkv"]))

    logits, targets = (5 * random(T, V)).detach().requires_grad_(), torch.tensor([0, 10, 5, 5, 1, 2, 9])
    loss = F.cross_entropy(logits, targets, reduction="none")
    gradient, = torch.autograd.grad(0.25 * loss.sum(), [logits])
    record("crossEntropy", dict(logits=logits, targets=targets, gradientScale=0.25), dict(loss=loss, gradient=gradient))

    options = dict(lr=0.03, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2)
    p = random(9).detach()
    start, steps = p.clone(), []
    optimizer = torch.optim.AdamW([p], **options)
    for factor in [0.01, 1, 5]:
        p.grad = factor * random(9).detach()
        steps.append(dict(gradients=p.grad.tolist()))
        steps[-1]["norm"] = torch.nn.utils.clip_grad_norm_([p], 1.0).item()
        optimizer.step()
        steps[-1]["parameters"] = p.tolist()
    record("adamw", dict(parameters=start, maxNorm=1.0, learningRate=0.03, beta1=0.8, beta2=0.95, epsilon=1e-6,
                         weightDecay=0.2), dict(steps=steps))
    return result


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    for name, options in CASES.items():
        shutil.rmtree(PARITY / name, ignore_errors=True)
        make_case(name, **options)
    (PARITY / "operations.json").write_text(dumps(operations()) + "\n")
