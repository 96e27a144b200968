# Debian with Python, for machines that cannot pull python:3.12-slim.
FROM scratch
ADD base.tar /
CMD ["python3"]
