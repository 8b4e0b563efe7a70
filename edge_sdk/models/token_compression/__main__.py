"""``python -m edge_sdk.models.token_compression`` compresses the tokens of one photo."""

import sys

from edge_sdk.models.token_compression._command import main

if __name__ == "__main__":
    sys.exit(main())
