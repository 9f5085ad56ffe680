"""The rows of gpu.ts, by PyTorch on CUDA: eager mode, TF32 off, no compilation.

    python3 benchmarks/gpu_torch.py [--json] [--out FILE] [--only WORD]... [--quick] [--runs N] [--seconds N]

Rows have the same names, so that two JSON files can be laid side by side. PyTorch has neither q8 nor q4 weights of
its own: those rows say so. Without transformers, a GPT-2 of the same shapes in plain PyTorch takes its place, and
without PEFT its adapter is written out; the rows' `by` tells. Without CUDA it computes on the CPU, to be tested.
"""

import argparse
import datetime
import json
import math
import platform
import statistics
import sys
import time

import torch
import torch.nn.functional as F

try:
    import transformers
    from transformers import GPT2Config, GPT2LMHeadModel

    transformers.logging.set_verbosity_error()
except ImportError:
    transformers = None
try:
    import peft
except ImportError:
    peft = None

FORMATS = ("f32", "f16", "q8", "q4")
BYTES = {"f32": 4, "f16": 2}
DTYPES = {"f32": torch.float32, "f16": torch.float16}


def main():
    parser = argparse.ArgumentParser(description="The rows of gpu.ts, by PyTorch.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=positive)
    parser.add_argument("--seconds", type=positive)
    options = parser.parse_args()
    options.runs = options.runs or (2 if options.quick else 5)
    options.seconds = options.seconds or (120 if options.quick else 480)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    bench = Bench(options)
    bench.save()  # a file that cannot be written is known at once
    with torch.no_grad():
        ceilings(bench)
        products(bench)
        adapters(bench)
        vectors(bench)
    attention(bench)
    with torch.no_grad():
        attention_cached(bench)
    rows(bench)
    losses(bench)
    with torch.no_grad():
        sampling(bench)
    elements(bench)
    models(bench)
    bench.finish()


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


class Bench:
    """The run: where rows go, and how long is left."""

    def __init__(self, options):
        self.options, self.quick, self.runs = options, options.quick, options.runs
        self.end = time.perf_counter() + options.seconds
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.cuda else "cpu")
        name = torch.cuda.get_device_name() if self.cuda else f"CPU ({torch.get_num_threads()} threads)"
        limits = {}
        if self.cuda:
            properties = torch.cuda.get_device_properties(0)
            limits = {"memory": properties.total_memory, "multiprocessors": properties.multi_processor_count}
        self.record = {
            "program": f"PyTorch {torch.__version__}",
            "date": datetime.date.today().isoformat(),
            "adapter": {"description": name, "software": not self.cuda, "features": [], "limits": limits},
            "system": f"Python {platform.python_version()}, {platform.system().lower()} {platform.machine()}",
            "quick": self.quick,
            "ceilings": {},
            "rows": [],
        }
        self.say(f"{self.record['program']}, {self.record['system']}, {self.record['date']}")
        self.say(f"adapter: {name}; eager, TF32 off")
        if not self.cuda:
            self.say("No CUDA here: this computes on the CPU, its figures say nothing about graphics cards.")
        self.say(line(["what", "figure", "min – max", "share", "ms", "by"]))

    def say(self, text):
        print(text, file=sys.stderr if self.options.json else sys.stdout, flush=True)

    def settle(self):
        if self.cuda:
            torch.cuda.synchronize()

    def wants(self, group, name):
        text = f"{group}: {name}".lower()
        return not self.options.only or any(word.lower() in text for word in self.options.only)

    def left(self):
        return self.end - time.perf_counter()

    def put(self, row):
        self.record["rows"].append(row)
        self.say(row_line(row))
        self.save()

    def row(self, group, name, unit, of, measure):
        """One row: `measure` gives the amount of a call, and the seconds of each sample."""
        if not (group == "ceiling" or self.wants(group, name)):
            return
        row = {"group": group, "name": name, "unit": unit}
        if of and group != "ceiling":
            row["of"] = of
        if self.left() <= 0:
            return self.put({**row, "absent": "no time was left"})
        try:
            amount, seconds, *more = measure()
        except Exception as error:  # one row's failure is its own
            return self.put({**row, "absent": f"{type(error).__name__}: {error}".split("\n")[0]})
        figures = [amount / s for s in seconds]
        value = statistics.median(figures)
        row.update(value=value, low=min(figures), high=max(figures), runs=len(figures), milliseconds=1000 * amount / value)
        if group != "ceiling" and of in self.record["ceilings"]:
            row["share"] = value / self.record["ceilings"][of]
        row.update(*more)
        if group == "ceiling":
            kind = "bandwidth" if unit == "GB/s" else "fp32"
            self.record["ceilings"][kind] = max(self.record["ceilings"].get(kind, 0), value)
        self.put(row)

    def absent(self, group, name, unit, reason):
        if self.wants(group, name):
            self.put({"group": group, "name": name, "unit": unit, "absent": reason})

    def kernel(self, group, name, unit, amount, prepare, of=None):
        """Calls that are enqueued: `prepare` makes what they work on and gives what does them once."""

        def measure():
            work = prepare()

            def sample(calls):
                self.settle()
                begin = time.perf_counter()
                for _ in range(calls):
                    work()
                self.settle()
                return time.perf_counter() - begin

            sample(1)
            least, most = (1e-4, 2) if self.quick else (0.1, 8192)
            calls, last = 1, sample(1)
            while last < least and calls < most:
                calls = min(most, math.ceil(calls * min(10, max(2, 1.2 * least / last))))
                last = sample(calls)
            return amount, [sample(calls) / calls for _ in range(self.runs)]

        self.row(group, name, unit, of or ("bandwidth" if unit == "GB/s" else "fp32"), measure)
        if self.cuda:
            torch.cuda.empty_cache()

    def tensor(self, *shape, dtype=torch.float32):
        return (torch.rand(shape, device=self.device) - 0.5).mul_(0.06).to(dtype)

    def indices(self, values):
        return torch.tensor(list(values), device=self.device)

    def save(self):
        if self.options.out:
            try:
                with open(self.options.out, "w") as file:
                    json.dump(self.record, file, indent=2)
                    file.write("\n")
            except OSError as error:
                sys.exit(f"gpu_torch: --out: {error}")

    def finish(self):
        self.save()
        if self.options.json:
            print(json.dumps(self.record))


def digits(value):
    if value == 0 or not math.isfinite(value):
        return str(value)
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.2e}" if decimals > 5 else f"{value:.{decimals}f}"


def line(cells):
    widths = (62, 17, 19, 6, 9, 0)
    return " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()


def row_line(row):
    what = f"{row['group']}: {row['name']}"
    if "value" not in row:
        return line([what, "–", row["absent"]])
    return line([
        what,
        f"{digits(row['value'])} {row['unit']}",
        f"{digits(row['low'])} – {digits(row['high'])}",
        f"{100 * row['share']:.0f} %" if "share" in row else "",
        digits(row["milliseconds"]),
        row.get("by", ""),
    ])


def ceilings(bench):
    """The product that libraries do best, and a copy: PyTorch has no kernel that only multiplies and adds."""
    size = 64 if bench.quick else 8192
    a, b = bench.tensor(size, size), bench.tensor(size, size)
    out = torch.empty_like(a)
    name = f"fp32 product, {size} × {size} × {size}"
    bench.kernel("ceiling", name, "GFLOP/s", 2 * size**3 / 1e9, lambda: lambda: torch.mm(a, b, out=out))
    x = bench.tensor(1 << (14 if bench.quick else 26))
    y = torch.empty_like(x)
    bench.kernel("ceiling", "copy by command", "GB/s", 2 * x.nbytes / 1e9, lambda: lambda: y.copy_(x))
    bench.kernel("ceiling", "read by kernel", "GB/s", x.nbytes / 1e9, lambda: lambda: x.sum())


def products(bench):
    shapes = [(64, 64, 64)] if bench.quick else [
        (4096, 4096, 4096),
        (1024, 768, 3072),
        (4096, 768, 2304),
        (4096, 768, 768),
        (4096, 768, 3072),
        (4096, 3072, 768),
    ]
    vocabulary = (4, 32, 100) if bench.quick else (64, 768, 50257)
    for M, K, N in [*shapes, vocabulary]:
        last = (M, K, N) == vocabulary
        for format in FORMATS:
            for transposed in (True,) if last else (False, True):
                name = f"{M} × {K} × {N}, {format}"
                name = f"vocabulary, {name}" if last else f"{name}, transposed" if transposed else name
                if format not in DTYPES:
                    bench.absent("matmul", name, "GFLOP/s", "PyTorch has no such weights")
                    continue

                def prepare(M=M, K=K, N=N, dtype=DTYPES[format], transposed=transposed):
                    a, out = bench.tensor(M, K, dtype=dtype), torch.empty(M, N, dtype=dtype, device=bench.device)
                    b = bench.tensor(N, K, dtype=dtype).t() if transposed else bench.tensor(K, N, dtype=dtype)
                    return lambda: torch.mm(a, b, out=out)

                bench.kernel("matmul", name, "GFLOP/s", 2 * M * K * N / 1e9, prepare)


def adapters(bench):
    T, C, R, N = (32, 16, 8, 48) if bench.quick else (4096, 768, 8, 2304)
    for what, M, K, N, a_t, b_t in (
        ("x Aᵀ", T, C, R, False, True),
        ("h Bᵀ", T, R, N, False, True),
        ("gradient of A", R, T, C, True, False),
        ("gradient of B", N, T, R, True, False),
        ("gradient of a weight", C, T, N, True, False),
    ):

        def prepare(M=M, K=K, N=N, a_t=a_t, b_t=b_t, adds=what == "h Bᵀ"):
            a = bench.tensor(K, M).t() if a_t else bench.tensor(M, K)
            b = bench.tensor(N, K).t() if b_t else bench.tensor(K, N)
            out = bench.tensor(M, N)
            return (lambda: out.addmm_(a, b)) if adds else (lambda: torch.mm(a, b, out=out))

        bench.kernel("matmul", f"{what}, {M} × {K} × {N}, plain", "GFLOP/s", 2 * M * K * N / 1e9, prepare)


def vectors(bench):
    C, V, layers = (32, 100, 1) if bench.quick else (768, 50257, 12)
    shapes = ((C, 3 * C), (C, C), (C, 4 * C), (4 * C, C))
    for format in FORMATS:
        name = f"1 × every weight of {layers} layers {C} wide and the vocabulary, {format}"
        if format not in DTYPES:
            bench.absent("matvec", name, "GB/s", "PyTorch has no such weights")
            continue

        def prepare(dtype=DTYPES[format]):
            weights = [bench.tensor(*shape, dtype=dtype) for _ in range(layers) for shape in shapes]
            wte = bench.tensor(V, C, dtype=dtype)
            x, wide = bench.tensor(1, C, dtype=dtype), bench.tensor(1, 4 * C, dtype=dtype)

            def work():
                for b in weights:
                    torch.mm(x if b.shape[0] == C else wide, b)
                torch.mm(x, wte.t())

            return work

        bench.kernel("matvec", name, "GB/s", (layers * 12 * C * C + V * C) * BYTES[format] / 1e9, prepare)


def attention(bench):
    for B, T, H, C in ((2, 16, 2, 64),) if bench.quick else ((8, 512, 12, 768), (4, 1024, 12, 768)):
        flops = B * T * (T + 1) / 2 * 4 * C
        size = f"{B} × {T}, {H} heads of {C // H}"

        def inputs(B=B, T=T, H=H, C=C):
            return [bench.tensor(B, H, T, C // H).requires_grad_() for _ in range(3)]

        def forward():
            q, k, v = inputs()

            def work():
                with torch.no_grad():
                    F.scaled_dot_product_attention(q, k, v, is_causal=True)

            return work

        def backward():
            leaves = inputs()
            out = F.scaled_dot_product_attention(*leaves, is_causal=True)
            d_out = torch.ones_like(out)
            return lambda: torch.autograd.grad(out, leaves, d_out, retain_graph=True)

        bench.kernel("attention", f"forward, {size}", "GFLOP/s", flops / 1e9, forward)
        bench.kernel("attention", f"backward, {size}", "GFLOP/s", 2.5 * flops / 1e9, backward)


def attention_cached(bench):
    positions, H, C, layers = (32, 2, 64, 1) if bench.quick else (1024, 12, 768, 12)
    for format in ("f32", "f16"):

        def prepare(dtype=DTYPES[format]):
            shape = (1, H, positions, C // H)
            caches = [[bench.tensor(*shape, dtype=dtype) for _ in range(2)] for _ in range(layers)]
            q = bench.tensor(1, H, 1, C // H, dtype=dtype)

            def work():
                for k, v in caches:
                    F.scaled_dot_product_attention(q, k, v)

            return work

        name = f"one token after {positions - 1}, {layers} layers, {format} cache"
        bench.kernel("attention", name, "GB/s", layers * 2 * positions * C * BYTES[format] / 1e9, prepare)


def rows(bench):
    T, C, V = (32, 64, 100) if bench.quick else (4096, 768, 50257)
    gigabytes = T * C * 4 / 1e9

    def layer_norm(back):
        x, weight, bias = bench.tensor(T, C).requires_grad_(), bench.tensor(C), bench.tensor(C)
        if back:
            out = F.layer_norm(x, (C,), weight, bias)
            d_out = torch.ones_like(out)
            return lambda: torch.autograd.grad(out, x, d_out, retain_graph=True)
        return lambda: F.layer_norm(x.detach(), (C,), weight, bias)

    bench.kernel("rows", f"layer norm, {T} × {C}", "GB/s", 2 * gigabytes, lambda: layer_norm(False))
    bench.kernel("rows", f"layer norm backward, {T} × {C}", "GB/s", 3 * gigabytes, lambda: layer_norm(True))
    for format in FORMATS:
        if format not in DTYPES:
            bench.absent("rows", f"embedding, {T} × {C}, {format}", "GB/s", "PyTorch has no such weights")
            continue

        def embedding(dtype=DTYPES[format]):
            wte, wpe = bench.tensor(V, C, dtype=dtype), bench.tensor(T, C)
            tokens, positions = bench.indices(i * 7919 % V for i in range(T)), bench.indices(range(T))
            return lambda: F.embedding(tokens, wte) + F.embedding(positions, wpe)

        amount = T * C * (BYTES[format] + 8) / 1e9
        bench.kernel("rows", f"embedding, {T} × {C}, {format}", "GB/s", amount, embedding)

    def sum_of_rows():
        x = bench.tensor(T, 4 * C)
        return lambda: x.sum(0)

    bench.kernel("rows", f"sum of rows, {T} × {4 * C}", "GB/s", 4 * gigabytes, sum_of_rows)


def losses(bench):
    N, V = (4, 100) if bench.quick else (64, 50257)

    def prepare(back):
        logits = bench.tensor(N, V).requires_grad_()
        targets = bench.indices(i * 7919 % V for i in range(N))
        if back:
            return lambda: torch.autograd.grad(F.cross_entropy(logits, targets), logits)
        return lambda: F.cross_entropy(logits.detach(), targets)

    bench.kernel("loss", f"cross-entropy, {N} × {V}", "GB/s", N * V * 4 / 1e9, lambda: prepare(False))
    name = f"cross-entropy and its gradient, {N} × {V}"
    bench.kernel("loss", name, "GB/s", 2 * N * V * 4 / 1e9, lambda: prepare(True))


def sampling(bench):
    V = 100 if bench.quick else 50257

    def greedy(logits, seen):
        return logits.argmax(-1), logits.log_softmax(-1)

    def warm(logits, seen):
        return torch.multinomial((logits / 0.8).softmax(-1), 1), logits.log_softmax(-1)

    def cut(logits, seen):
        scores = torch.where(seen, torch.where(logits > 0, logits / 1.1, logits * 1.1), logits) / 0.8
        top, ids = scores.topk(40)
        probabilities = top.softmax(-1)
        keep = probabilities.cumsum(-1) - probabilities < 0.95
        chosen = torch.multinomial(probabilities * keep, 1)
        return ids.gather(-1, chosen), logits.log_softmax(-1)

    kinds = (("greedy", greedy), ("temperature 0.8", warm), ("top-k 40, top-p 0.95, penalty 1.1", cut))
    for kind, choose in kinds:
        for N in (1, 8):

            def prepare(N=N, choose=choose):
                logits = bench.tensor(N, V)
                seen = torch.zeros(N, V, dtype=torch.bool, device=bench.device)
                return lambda: choose(logits, seen)

            bench.kernel("sampling", f"{kind}, {N} × {V}", "GB/s", N * V * 4 / 1e9, prepare)


def elements(bench):
    n = 4096 if bench.quick else 1 << 24
    gigabytes = n * 4 / 1e9

    def row(name, amount, prepare):
        bench.kernel("elements", f"{name}, {n} numbers", "GB/s", amount * gigabytes, prepare)

    def copy():
        x, out = bench.tensor(n), bench.tensor(n)
        return lambda: out.copy_(x)

    def add():
        a, b, out = bench.tensor(n), bench.tensor(n), bench.tensor(n)
        return lambda: torch.add(a, b, out=out)

    def gelu():
        x = bench.tensor(n)
        return lambda: F.gelu(x, approximate="tanh")

    def gelu_backward():
        x = bench.tensor(n).requires_grad_()
        out = F.gelu(x, approximate="tanh")
        d_out = torch.ones_like(out)
        return lambda: torch.autograd.grad(out, x, d_out, retain_graph=True)

    def sum_of_squares():
        x = bench.tensor(n)
        return lambda: torch.linalg.vector_norm(x)

    def adamw():
        parameter = bench.tensor(n).requires_grad_()
        parameter.grad = bench.tensor(n)
        return torch.optim.AdamW([parameter], lr=1e-4, weight_decay=0.0).step

    row("copy", 2, copy)
    row("add", 3, add)
    row("GELU", 2, gelu)
    row("GELU backward", 3, gelu_backward)
    row("sum of squares", 1, sum_of_squares)
    row("AdamW", 7, adamw)


SIZES = (("124M", (12, 12, 768, 1024, 50257)), ("355M", (24, 16, 1024, 1024, 50257)))
TINY = (("tiny", (2, 2, 32, 64, 100)),)


def models(bench):
    B, T = (2, 16) if bench.quick else (8, 512)
    prompt, tokens = (8, 8) if bench.quick else (64, 256)
    for size, shape in TINY if bench.quick else SIZES:
        for format in FORMATS:
            decode = f"{size} {format}, {tokens} greedy tokens after {prompt}"
            lora = f"{size} {format}, r = 8 on c_attn, {B} × {T} tokens, a step"
            if format not in DTYPES:
                bench.absent("decode", decode, "tokens/s", "PyTorch has no such weights")
                continue
            names = [("decode", decode)] + ([("LoRA", lora)] if format == "f32" else [])
            if bench.left() <= 0 or not any(bench.wants(*name) for name in names):
                for group, name in names:
                    bench.absent(group, name, "tokens/s", "no time was left")
                continue
            model, by = make(shape, DTYPES[format], bench.device)
            bench.row("decode", decode, "tokens/s", None, lambda: decoding(bench, model, by, prompt, tokens))
            if format == "f32":
                bench.row("LoRA", lora, "tokens/s", None, lambda: training(bench, model, by, B, T))
            del model
            if bench.cuda:
                torch.cuda.empty_cache()


def make(shape, dtype, device):
    """A GPT-2 with random weights, and whose it is."""
    layers, heads, width, positions, vocabulary = shape
    with torch.device(device):
        if transformers is None:
            return PlainGPT2(*shape).to(dtype), "a plain GPT-2, for transformers is missing"
        config = GPT2Config(
            n_layer=layers, n_head=heads, n_embd=width, n_positions=positions, vocab_size=vocabulary,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        )
        return GPT2LMHeadModel(config).to(dtype), f"transformers {transformers.__version__}"


def repeat(bench, run):
    run()
    run()
    seconds = []
    for _ in range(bench.runs):
        bench.settle()
        begin = time.perf_counter()
        run()
        bench.settle()
        seconds.append(time.perf_counter() - begin)
        if bench.left() <= 0:
            break
    return seconds


def decoding(bench, model, by, length, tokens):
    model.eval()
    vocabulary = model.config.vocab_size if transformers else model.vocabulary
    ids = bench.indices(i * 101 % vocabulary for i in range(length))[None]
    if transformers:
        settings = transformers.GenerationConfig(
            max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )

    def run():
        with torch.inference_mode():
            if transformers:
                out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
            else:
                out = model.generate(ids, tokens)
        if out.shape[1] != length + tokens:
            raise ValueError(f"{out.shape[1] - length} tokens came instead of {tokens}")

    return 1, [seconds / tokens for seconds in repeat(bench, run)], {"by": by}


def training(bench, model, by, B, T):
    vocabulary = model.config.vocab_size if transformers else model.vocabulary
    ids = torch.stack([bench.indices((i * 7919 + b * 101) % vocabulary for i in range(T)) for b in range(B)])
    if transformers and peft:
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True)
        model = peft.get_peft_model(model, config)
        by = f"{by}, PEFT {peft.__version__}"
    else:
        by = f"{by}; the adapter is written out, for PEFT is missing"
        adapt(model)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)

    def run():
        logits = model(ids).logits if transformers else model(ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(loss.item()):
            raise ValueError(f"the loss is {loss.item()}")

    return B * T, repeat(bench, run), {"by": by}


class LowRank(torch.nn.Module):
    """A frozen layer and the two thin matrices beside it (Hu et al. 2021)."""

    def __init__(self, layer, rank=8, alpha=16):
        super().__init__()
        weight = layer.weight
        self.layer, self.scaling = layer, alpha / rank
        # transformers' Conv1D has (in, out), nn.Linear (out, in).
        wide = weight.shape if not isinstance(layer, torch.nn.Linear) else weight.shape[::-1]
        self.A = torch.nn.Parameter(torch.randn(wide[0], rank, device=weight.device) / math.sqrt(wide[0]))
        self.B = torch.nn.Parameter(torch.zeros(rank, wide[1], device=weight.device))

    def forward(self, x):
        return self.layer(x) + x @ self.A @ self.B * self.scaling


def adapt(model):
    """Freezes a model and adapts every c_attn."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in list(model.modules()):
        if hasattr(module, "c_attn"):
            module.c_attn = LowRank(module.c_attn)


class Block(torch.nn.Module):
    def __init__(self, heads, width):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.c_attn, self.c_proj = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.c_fc, self.c_out = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x, cache=None):
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(C, 2)
        )
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = k, v
        out = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
        x = x + self.c_proj(out.transpose(1, 2).reshape(B, T, C))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class PlainGPT2(torch.nn.Module):
    """GPT-2's shapes and nothing else."""

    def __init__(self, layers, heads, width, positions, vocabulary):
        super().__init__()
        self.vocabulary = vocabulary
        self.wte = torch.nn.Embedding(vocabulary, width)
        self.wpe = torch.nn.Embedding(positions, width)
        self.h = torch.nn.ModuleList(Block(heads, width) for _ in range(layers))
        self.ln_f = torch.nn.LayerNorm(width)

    def hidden(self, ids, caches=None, first=0):
        x = self.wte(ids) + self.wpe(torch.arange(first, first + ids.shape[1], device=ids.device))
        for block, cache in zip(self.h, caches or [None] * len(self.h)):
            x = block(x, cache)
        return self.ln_f(x)

    def forward(self, ids):
        return self.hidden(ids) @ self.wte.weight.t()

    def generate(self, ids, tokens):
        caches, new = [[] for _ in self.h], ids
        for _ in range(tokens):
            hidden = self.hidden(new, caches, ids.shape[1] - new.shape[1])
            new = (hidden[:, -1] @ self.wte.weight.t()).argmax(-1, keepdim=True)
            ids = torch.cat((ids, new), 1)
        return ids


if __name__ == "__main__":
    main()
