"""``python -m fairseq_ecg`` is the ``fairseq-ecg`` command."""

from fairseq_ecg.cli.main import main

raise SystemExit(main())
