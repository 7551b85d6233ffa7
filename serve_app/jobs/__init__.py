"""Jobs: transcriptions that outlive the request, the process and the cluster that took them."""
