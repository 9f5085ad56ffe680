"""Prints, as one JSON object, what PEFT makes of a model and an adapter that another program wrote.

    python check_adapter.py BASE_DIRECTORY ADAPTER_DIRECTORY "[[1, 2, 3], [4, 5]]"

BASE_DIRECTORY and ADAPTER_DIRECTORY are what GPT2LMHeadModel and PeftModel load from ("none" for no
adapter); the third argument is a list of token sequences, each run alone. Prints
{"logits": [[[...], ...], ...], "texts": [...]}: for each sequence, for each token, V numbers, in float32;
and its tokens as text, by the tokenizer that BASE_DIRECTORY has. Fails where the libraries would only warn:
a tensor that is missing or that finds no module. Needs torch, transformers and peft; see make_fixtures.py.
"""

import json
import pathlib
import sys

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoTokenizer, GPT2LMHeadModel


def main(base, adapter, sequences):
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    sequences = json.loads(sequences)
    model, report = GPT2LMHeadModel.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if any(report.values()):
        sys.exit(f"{base}: {report}")
    if adapter != "none":
        model = PeftModel.from_pretrained(model, adapter)
        with safe_open(pathlib.Path(adapter) / "adapter_model.safetensors", "pt") as file:
            stored, wanted = set(file.keys()), set(get_peft_model_state_dict(model))
        if stored != wanted:
            sys.exit(f"only in the file: {sorted(stored - wanted)}; only in the model: {sorted(wanted - stored)}")
    model.eval()
    with torch.no_grad():
        logits = [model(torch.tensor([tokens])).logits[0].tolist() for tokens in sequences]
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [tokenizer.decode(tokens, clean_up_tokenization_spaces=False) for tokens in sequences]
    json.dump({"logits": logits, "texts": texts}, sys.stdout)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
