"""Weights of other frameworks, read and written: names and layouts, and nothing of fdiff.

weights      a checkpoint <-> a tree of Flax parameters, strict, one tensor at a time
names        the spellings that files have for the names of today
layout       torch's axes <-> Flax's, and a parameter's path <-> its torch name
safetensors  the safetensors format
pickles      torch's .bin, .pt and .ckpt files, read without running anything in them (pickle_names, zips)
json_text    JSON whose memory is known before it is parsed
tensors      a tensor that lies in a file
files        saves that appear whole or not at all, and reading that says what is wrong
lazy         a tree whose tensors are read as they are written
views        a tensor in a file seen otherwise: rows of it, its axes permuted
single_file  Stable Diffusion in one file: its parts and their names (original, unet_order) and configs (families)
flax_weights HF's old Flax weights
lora         LoRAs of every dialect: their names (lora_names), what they add by method (methods), peft's configs (peft)
ip_adapter   IP-Adapters
"""
