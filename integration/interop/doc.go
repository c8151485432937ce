// Package interop runs members of the Python client retriable-kafka-client, as it is published, for tests in which they and members of
// this library work on the same topics. The stories about them are in package stories, in files named python_*.
//
// [Need] makes the Python environment the first time, which takes Python 3.13 and PyPI, and keeps it in the user's cache folder, under
// retriable-python. Where there is no Python 3.13 a test is skipped; with CI=true it fails instead. RETRIABLE_PYTHON names the
// interpreter to use; without it PATH and pyenv's folder are looked through.
//
// [Python.Producer] and [Python.Member] are processes that run the client's own BaseProducer and BaseConsumer: produce.py and consume.py
// in this folder only pass on what they are told and tell what they see, as lines of JSON.
package interop
