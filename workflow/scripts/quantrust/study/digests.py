"""Digests of the code that a job runs and that its script does not import: modules that are found by a name."""

from functools import cache

from quantrust.artifacts.digests import digest_of
from quantrust.confidence.catalogue import LEARNED, estimator_module
from quantrust.data.format import format_module
from quantrust.digest import SCRIPTS, code_digest, code_files, source_digest
from quantrust.errors import QuantrustError
from quantrust.named_modules import FAMILIES, METHODS, READERS
from quantrust.quantization.external_config import external_format
from quantrust.quantization.method_traits import method_traits
from quantrust.study.contents import Config, base_model, external_folder, scheme_of, scored_estimators
from quantrust.study.inputs import external_files, formats_of, task_of
from quantrust.tasks.task import task_module


@cache
def script_code(script: str) -> str:
    """Return the digest of a script, named without its ending, and of every module of the package that it imports."""
    return code_digest(SCRIPTS / f"{script}.py")


def entry_code(config: Config, module: str) -> list[str]:
    """Return digests of the module of a figure or table and, where it draws, of how the study's methods look.

    What methods are called and drawn as is read from the source of their modules, which nothing imports.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    module : str
        Named with dots.
    """
    path = SCRIPTS.joinpath(*module.split(".")).with_suffix(".py")
    draws = SCRIPTS / "quantrust" / "report" / "style.py" in code_files(path, SCRIPTS)
    schemes = [scheme_of(config, name) for name in config["study"]["schemes"] if draws]
    methods = sorted({scheme.method for scheme in schemes if scheme.method is not None})
    return [source_digest(module), *(repr(method_traits(name)) for name in methods)]


def quantization_code(config: Config, scheme: str) -> list[str]:
    """Return digests of what quantizes under a scheme: of the script, and of the method's module."""
    method = scheme_of(config, scheme).method
    return [script_code("quantize_model"), *([] if method is None else [source_digest(f"{METHODS}.{method}")])]


def external_code(config: Config, model: str, scheme: str) -> list[str]:
    """Return digests of what reads a variant that others quantized: of the script, and of its format's reader."""
    reader = external_format(external_folder(config, model, scheme)).reader
    return [script_code("import_checkpoint"), source_digest(f"{READERS}.{reader}")]


def external_bytes(config: Config, model: str, scheme: str) -> list[str]:
    """Return digests of the files of a variant that others quantized, by which a change of them is seen.

    Their times say little: a copy has new ones, and what replaces a file may be older than it.
    """
    files = external_files(config, model, scheme)
    try:
        return [digest_of(path) for path in files]
    except OSError as error:
        raise QuantrustError(f"{error.filename} cannot be read ({error.strerror}); make it readable") from None


def format_code(config: Config, dataset: str) -> list[str]:
    """Return digests of the readers of a dataset's formats."""
    return [source_digest(format_module(name)) for name in formats_of(config, dataset)]


def task_code(config: Config, dataset: str) -> str:
    """Return the digest of the task of a dataset."""
    return source_digest(task_module(task_of(config, dataset)))


def family_code(config: Config, model: str) -> str:
    """Return the digest of the adapter of a model's family."""
    return source_digest(f"{FAMILIES}.{base_model(config, model)['family']}")


def estimator_code(config: Config) -> list[str]:
    """Return digests of the estimators that the scores hold; the learned ones have theirs with the script."""
    return [source_digest(estimator_module(name)) for name in scored_estimators(config) if name not in LEARNED]
