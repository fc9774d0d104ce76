"""A certificate of our own for `localhost` and 127.0.0.1, good from 2020 to 2120. Nothing but tests trusts it.

`OTHER_KEY` belongs to no certificate, `LOCKED_KEY` is `KEY` behind the passphrase `locked`.
"""

from pathlib import Path

_HERE = Path(__file__).parent

CERTIFICATE, KEY = _HERE / "cert.pem", _HERE / "key.pem"
OTHER_KEY, LOCKED_KEY = _HERE / "other_key.pem", _HERE / "locked_key.pem"
