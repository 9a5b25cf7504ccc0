"""Setuptools reads setup.cfg."""

from setuptools import setup

setup()
