"""`contentv serve` behind a bad network: a bit of every third reply is flipped on the way."""

import sys
from itertools import count

import pyarrow as pa

from contentv.cli import main
from contentv.encoding.server import EncodeServer
from serving import damaged

if __name__ == "__main__":
    encode, numbers = EncodeServer._encode, count()

    def reply(server: EncodeServer, *asked: object) -> pa.RecordBatch:
        record = encode(server, *asked)
        return record if next(numbers) % 3 else damaged(record)

    EncodeServer._encode = reply
    sys.exit(main())
