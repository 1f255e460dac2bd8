"""Adapters: functions from parameters to parameters.

lora               low-rank changes of weights: merged, taken back, or applied while a network runs
textual_inversion  words that a text encoder learns
ip_adapter         pictures as prompts
"""

from fdiff.adapters import ip_adapter, lora, textual_inversion

__all__ = ["ip_adapter", "lora", "textual_inversion"]
