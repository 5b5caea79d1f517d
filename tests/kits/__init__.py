"""Test helpers: each `*_kit` is for one area, `helpers` is for all tests.

fake_trainer.py and make_nets_facts.py are programs.
"""
