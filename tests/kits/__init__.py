"""Helpers of the tests: `*_kit` of one area, `helpers` of all.

fake_trainer.py and make_nets_facts.py are programs.
"""
