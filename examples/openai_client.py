"""Energy of a response and of a stream with the OpenAI client.

Usage: ``python openai_client.py [URL]``, where URL is the proxy's data port (default http://127.0.0.1:9000).
"""

import sys

import openai

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9000"
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Where do the joules go?"}]

# "wait" holds the response until its energy is measured; "on" returns a provisional value at once.
response = client.chat.completions.create(
    model=model, messages=messages, max_tokens=16, extra_headers={"x-energy": "wait"}
)
energy = response.energy
print(f"response: {energy['joules']:.2f} J ({energy['joules_low']:.2f} to {energy['joules_high']:.2f} J)")

# A stream has its energy in the last usage chunk. Its value is provisional ("final": false) while the windows
# of measured energy around it are open; the record on the admin port becomes final later.
stream = client.chat.completions.create(
    model=model,
    messages=messages,
    max_tokens=16,
    stream=True,
    stream_options={"include_usage": True},
    extra_headers={"x-energy": "wait"},
)
for chunk in stream:
    if chunk.usage is not None:
        energy = chunk.usage.energy
        tokens = chunk.usage.completion_tokens
        print(f"stream: {energy['joules']:.2f} J for {tokens} tokens, final: {energy['final']}")
