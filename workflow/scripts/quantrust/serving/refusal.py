"""The one exception for requests that are not answered, in the shape of OpenAI's errors."""

from typing import Any

KINDS = {401: "authentication_error", 404: "not_found_error", 408: "timeout_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """A request that is not answered: the message says what is wrong with it and what to do.

    Parameters
    ----------
    status : int
        Of the reply.
    message : str
        Nothing of the picture or the question stands in it.
    code : str
        A word for programs.
    param : str, optional
        The field that is at fault.
    headers : dict of str to str, optional
        Further ones of the reply, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the reply's content."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """Return the refusal of a request whose content is at fault."""
    return Refusal(400, message, code, param)


def internal() -> Refusal:
    """Return the refusal of a request on which the server itself failed."""
    return Refusal(500, "the server failed; its log says where", "internal")
