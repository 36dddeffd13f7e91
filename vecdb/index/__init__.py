"""Search structures over the vectors of one segment: named arrays in, named arrays out; no file is ever opened here."""
