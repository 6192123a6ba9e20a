"""Jobs per second and enqueue-to-start, per engine, beside plain arq, taskiq and SAQ."""
