"""Process start to first token with transformers, as a user would write it: MODEL PROMPT THREADS."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

directory, prompt, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
tokenizer = AutoTokenizer.from_pretrained(directory)
model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
inputs = tokenizer(prompt, return_tensors="pt")
with torch.inference_mode():
    out = model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=50256)
print(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :]), flush=True)
