"""The error tree is what its module says."""

import inspect

from toolkit import errors


def _classes() -> dict[str, type]:
    return {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def test_every_error_is_a_toolkit_error_and_is_drawn_in_the_tree():
    for name, error in _classes().items():
        assert issubclass(error, errors.ToolkitError)
        assert name in errors.__doc__


def test_errors_are_siblings_so_that_catching_one_catches_no_other():
    for name, error in _classes().items():
        assert name == "ToolkitError" or error.__bases__ == (errors.ToolkitError,)


def test_exit_codes_are_those_of_the_documentation_and_differ():
    assert (errors.DONE, errors.CHECK_FAILED, errors.BAD_INPUT, errors.INTERRUPTED) == (0, 1, 2, 130)
