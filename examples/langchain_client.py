"""Energy of LangChain calls, from the headers of the response.

Usage: ``python langchain_client.py [URL]``, where URL is the proxy's data port (default http://127.0.0.1:9000).
Needs ``pip install langchain-openai``. For streams, whose headers precede the energy, read the record of the
request from the admin port by its ``x-request-id``.
"""

import sys

import httpx
from langchain_openai import ChatOpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9000"
model = httpx.get(f"{url}/v1/models").raise_for_status().json()["data"][0]["id"]
chat = ChatOpenAI(
    model=model,
    base_url=f"{url}/v1",
    api_key="none",
    max_completion_tokens=16,
    include_response_headers=True,
    default_headers={"x-energy": "wait"},
)
message = chat.invoke("Where do the joules go?")
headers = message.response_metadata["headers"]
print(f"request {headers['x-request-id']}: {float(headers['x-energy-joules']):.2f} J")
