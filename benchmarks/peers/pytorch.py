"""PyTorch, transformers and PEFT: the same jobs as Whet's, asked and answered in lines of JSON (harness/serve.ts)."""

import json
import math
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load(job):
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(job["model"], dtype=DTYPES[job.get("dtype", "fp32")])


class Trainer:
    """An adapter of PEFT's on a frozen model, and AdamW as Whet has it."""

    def __init__(self, job):
        import peft

        self.version = f"PyTorch {torch.__version__}, PEFT {peft.__version__}"
        # Nothing is dropped, and the adapter begins with the same numbers as Whet's.
        self.model = peft.PeftModel.from_pretrained(load(job).eval(), job["adapter"], is_trainable=True)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-3, weight_decay=0.0)

    def step(self, **batch):
        loss = self.model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


class Lora(Trainer):
    """A step of B sequences of T tokens, all of them targets but the first."""

    def __init__(self, job):
        super().__init__(job)
        self.ids = torch.tensor(job["sequences"])
        self.losses = []

    def run(self):
        begin = time.perf_counter()
        self.losses.append(self.step(input_ids=self.ids, labels=self.ids))
        return {"amount": self.ids.numel(), "seconds": time.perf_counter() - begin}

    def check(self, _):
        return self.losses


class Dialogues(Trainer):
    """One pass, the loss on the assistant's turns: dialogues sorted by length, so many at a time as are fastest here,
    padded to the longest of them; the batches in a random order, in `parts` runs."""

    def __init__(self, job):
        super().__init__(job)
        with open(job["encoded"]) as file:
            examples = sorted(json.load(file), key=lambda example: len(example["tokens"]))
        size = max((1, 2, 4, 8), key=lambda size: self.speed(self.batches(examples, size)))
        self.version += f", padded batches of {size} dialogues"
        self.rest = self.batches(examples, size)
        order = torch.randperm(len(self.rest), generator=torch.Generator().manual_seed(1))
        self.rest = [self.rest[i] for i in order]
        self.parts, self.done, self.part = 0, 0, job["tokens"] / job["parts"]
        self.last = job["parts"]

    def speed(self, batches):
        """Real tokens per second of a batch of middling length."""
        batch, tokens = batches[len(batches) // 2]
        self.step(**batch)
        begin = time.perf_counter()
        self.step(**batch)
        return tokens / (time.perf_counter() - begin)

    @staticmethod
    def batches(examples, size):
        """Batches, and how many tokens of each are real."""
        made = []
        for begin in range(0, len(examples), size):
            group = examples[begin : begin + size]
            length = max(len(example["tokens"]) for example in group)
            pad = lambda values, value: values + [value] * (length - len(values))
            batch = {
                "input_ids": [pad(e["tokens"], 50256) for e in group],
                "attention_mask": [pad([1] * len(e["tokens"]), 0) for e in group],
                "labels": [
                    pad([t if c else -100 for t, c in zip(e["tokens"], e["counts"])], -100) for e in group
                ],
            }
            tokens = sum(len(e["tokens"]) for e in group)
            made.append(({name: torch.tensor(rows) for name, rows in batch.items()}, tokens))
        return made

    def run(self):
        before, begin = self.done, time.perf_counter()
        self.parts += 1
        end = math.inf if self.parts == self.last else self.part * self.parts
        while self.rest and self.done < end:
            batch, tokens = self.rest.pop()
            self.step(**batch)
            self.done += tokens
        return {"amount": self.done - before, "seconds": time.perf_counter() - begin}


class Generate:
    """transformers' generate: `prompt` in, `maxTokens` greedy tokens out."""

    def __init__(self, job):
        self.version = f"transformers {transformers.__version__}, PyTorch {torch.__version__}"
        self.model = load(job).eval()
        self.ids = torch.tensor([job["prompt"]])
        self.tokens, self.count = job["maxTokens"], job["count"]
        # eos_token_id: none, so that it always runs to the end.
        self.model.generation_config = GenerationConfig(
            max_new_tokens=self.tokens, do_sample=False, eos_token_id=None, pad_token_id=50256
        )

    def run(self):
        begin = time.perf_counter()
        with torch.inference_mode():
            out = self.model.generate(self.ids, attention_mask=torch.ones_like(self.ids))
        seconds = time.perf_counter() - begin
        count = out.shape[1] - self.ids.shape[1]
        if count != self.tokens:
            raise ValueError(f"{count} tokens came instead of {self.tokens}")
        return {"amount": self.ids.shape[1] if self.count == "prompt" else count, "seconds": seconds}

    def check(self, question):
        with torch.inference_mode():
            logits = self.model(self.ids, logits_to_keep=1).logits[0, -1]
        return torch.log_softmax(logits.float(), -1)[question["candidates"]].tolist()


class Reward:
    """transformers' DeBERTa scores pairs: sorted by length, so many at a time as are fastest here, padded to the longest of
    them."""

    def __init__(self, job):
        torch.set_num_threads(job["threads"])
        self.model = AutoModelForSequenceClassification.from_pretrained(job["model"], dtype=DTYPES[job["dtype"]]).eval()
        self.ids = job["ids"]
        self.order = sorted(range(len(self.ids)), key=lambda i: len(self.ids[i]))
        self.size = max((1, 2, 4, 8), key=self.speed)
        self.version = f"transformers {transformers.__version__}, PyTorch {torch.__version__}, padded batches of {self.size}"
        self.scores = [0.0] * len(self.ids)

    def batch(self, indices):
        """Its scores."""
        length = max(len(self.ids[i]) for i in indices)
        pad = lambda values, value: values + [value] * (length - len(values))
        ids = torch.tensor([pad(self.ids[i], 0) for i in indices])
        mask = torch.tensor([pad([1] * len(self.ids[i]), 0) for i in indices])
        with torch.inference_mode():
            return self.model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()

    def speed(self, size):
        """Pairs per second of a batch of middling length."""
        middle = len(self.order) // 2
        indices = self.order[middle : middle + size]
        self.batch(indices)
        begin = time.perf_counter()
        self.batch(indices)
        return len(indices) / (time.perf_counter() - begin)

    def run(self):
        begin = time.perf_counter()
        for at in range(0, len(self.order), self.size):
            indices = self.order[at : at + self.size]
            for i, score in zip(indices, self.batch(indices)):
                self.scores[i] = score
        return {"amount": len(self.ids), "seconds": time.perf_counter() - begin}

    def check(self, _):
        return self.scores


JOBS = {"lora": Lora, "dialogues": Dialogues, "generate": Generate, "reward": Reward}

if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    session = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if question["do"] == "open":
                session = JOBS[question["job"]](question)
                answer = session.version
            elif question["do"] == "run":
                answer = session.run()
            else:
                answer = session.check(question)
            print('{"answer":' + json.dumps(answer) + "}", flush=True)
        except Exception as error:
            print('{"error":' + json.dumps((str(error) or repr(error)).split("\n")[0]) + "}", flush=True)
