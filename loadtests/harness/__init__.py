"""What all load tests share: the report, the service, requests, and the measuring of processes."""
